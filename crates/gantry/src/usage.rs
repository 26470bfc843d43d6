//! A command line that makes no sense, as one sentence.

use std::ffi::OsString;

use clap::error::ErrorKind;

/// Whether it is no fault: help or the version was asked for, or nothing at all.
pub fn is_help(error: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// What is wrong, without how it is used.
pub fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let told = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let told = told.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut sentence = String::new();
    for line in told {
        let line = line.trim_start_matches("error: ").trim_start_matches("tip: ");
        match sentence.chars().last() {
            None => {}
            // A list follows.
            Some(':') => sentence.push(' '),
            Some(_) => sentence.push_str("; "),
        }
        sentence.push_str(line);
    }
    sentence
}

/// The commands that the arguments begin with: how many words they are, and the innermost.
pub fn innermost<'a>(root: &'a clap::Command, arguments: &[OsString]) -> (usize, &'a clap::Command) {
    let (mut words, mut command) = (0, root);
    while let Some(next) = arguments.get(words + 1).and_then(|word| command.find_subcommand(word)) {
        (words, command) = (words + 1, next);
    }
    (words, command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_one_line_each() {
        let command = clap::Command::new("x")
            .arg(clap::Arg::new("port").long("port").value_parser(clap::value_parser!(u16)).required(true))
            .arg(clap::Arg::new("kind").long("kind").value_parser(["a", "b"]));
        for (arguments, told) in [
            (vec!["x"], "the following required arguments were not provided: --port <port>"),
            (vec!["x", "--port=y"], "invalid value 'y' for '--port <port>': invalid digit found in string"),
            (vec!["x", "--prt=1"], "unexpected argument '--prt' found; a similar argument exists: '--port'"),
            (
                vec!["x", "--port=1", "--kind=c"],
                "invalid value 'c' for '--kind <kind>'; [possible values: a, b]",
            ),
        ] {
            let error = command.clone().try_get_matches_from(arguments).unwrap_err();
            assert_eq!(sentence(&error), told);
        }
    }
}
