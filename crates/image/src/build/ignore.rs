//! Patterns for file names, and `.dockerignore` (moby/patternmatcher, `patternmatcher.go`).

use std::path::Path;

/// What of a build context does not take part in the build.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignore {
    patterns: Vec<(bool, Vec<String>)>,
}

impl Ignore {
    pub(crate) fn parse(text: &str) -> Self {
        let mut patterns = Vec::new();
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keep, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let mut parts: Vec<String> = Vec::new();
            for part in pattern.split('/') {
                match part {
                    "" | "." => {}
                    ".." => _ = parts.pop(),
                    part => parts.push(part.to_owned()),
                }
            }
            if !parts.is_empty() {
                patterns.push((keep, parts));
            }
        }
        Self { patterns }
    }

    /// Whether the file or directory at `path` is left out; the last matching pattern decides.
    pub(crate) fn is_ignored(&self, path: &Path) -> bool {
        let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let mut ignored = false;
        for (keep, pattern) in &self.patterns {
            // A pattern that matches a directory speaks for all below it.
            if ignored == *keep && (1..=parts.len()).any(|depth| matches(pattern, &parts[..depth])) {
                ignored = !keep;
            }
        }
        ignored
    }

    /// Whether something below an ignored directory may be kept.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(keep, _)| *keep)
    }
}

/// Component by component; `**` stands for any number of them.
fn matches(pattern: &[String], path: &[String]) -> bool {
    // Dynamic programming instead of recursion: `**/**/**/…` would take for ever otherwise.
    let mut reachable = vec![false; path.len() + 1];
    reachable[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        if part == "**" {
            let mut any = false;
            for (at, slot) in next.iter_mut().enumerate() {
                any |= reachable[at];
                *slot = any;
            }
        } else {
            for at in 0..path.len() {
                next[at + 1] = reachable[at] && glob(part, &path[at]);
            }
        }
        reachable = next;
    }
    reachable[path.len()]
}

/// Whether the text has characters that make it a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Go's `filepath.Match` for one component: `*`, `?`, `[a-z]`, `[^a-z]`, `\` before a character.
pub(crate) fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last star has to take one character more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if n == name.len() {
            return p == pattern.len();
        }
        match single(&pattern, p, name[n]) {
            Some(next) => (p, n) = (next, n + 1),
            None => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
}

/// The position after the element at `p` if it matches `c`.
fn single(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern.get(p)? {
        '?' => Some(p + 1),
        '\\' => (*pattern.get(p + 1)? == c).then_some(p + 2),
        '[' => class(pattern, p + 1, c),
        literal => (*literal == c).then_some(p + 1),
    }
}

fn class(pattern: &[char], mut p: usize, c: char) -> Option<usize> {
    let negated = pattern.get(p) == Some(&'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    let mut first = true;
    loop {
        let mut low = *pattern.get(p)?;
        if low == ']' && !first {
            return (found != negated).then_some(p + 1);
        }
        first = false;
        if low == '\\' {
            p += 1;
            low = *pattern.get(p)?;
        }
        p += 1;
        let mut high = low;
        if pattern.get(p) == Some(&'-') {
            high = *pattern.get(p + 1)?;
            p += 2;
        }
        found |= (low..=high).contains(&c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("*.rs", "a.rs", true),
            ("*.rs", "a.rc", false),
            ("a*b*c", "aXbYbc", true),
            ("?", "ä", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[", "[", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn ignores() {
        let ignore =
            Ignore::parse("# comment\ntarget\n**/*.log\n!keep.log\n/docs/*.md\n!docs/README.md\n*/tmp\n");
        let is = |path: &str| ignore.is_ignored(Path::new(path));
        assert!(is("target") && is("target/debug/x") && !is("a/target"));
        assert!(is("x.log") && is("a/b/x.log") && !is("keep.log") && is("a/keep.log"));
        assert!(is("docs/a.md") && !is("docs/README.md") && !is("docs/a/b.md"));
        assert!(is("a/tmp") && is("a/tmp/b") && !is("tmp") && !is("a/b/tmp"));
        assert!(!Ignore::parse("").is_ignored(Path::new("a")));
        let all = Ignore::parse("*\n!src");
        assert!(all.is_ignored(Path::new("a")) && !all.is_ignored(Path::new("src/a")));
        assert!(Ignore::parse("**").is_ignored(Path::new("a/b")));
    }

    proptest! {
        #[test]
        fn never_panics_and_ends(pattern in "[a-b*?\\[\\]\\\\^-]{0,24}", name in "[a-b]{0,40}") {
            let _ = glob(&pattern, &name);
        }
    }
}
