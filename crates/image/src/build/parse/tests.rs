use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Vec<Instruction> {
    Dockerfile::parse(text).unwrap().steps.into_iter().map(|step| step.instruction).collect()
}

fn wrong(text: &str) -> String {
    Dockerfile::parse(text).unwrap_err().to_string()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn reads_instructions() {
    let text = r#"# syntax=docker/dockerfile:1
ARG BASE=alpine
# a comment
FROM --platform=linux/amd64 $BASE AS Build
env A=1 B="two words" C=x\ y
ENV OLD some value
RUN echo one \
    # in between

    && echo two
RUN ["/bin/true", "x"]
CMD [not json]
LABEL a.b=c
COPY --from=build --chown=1:2 --chmod=755 a b /c/
COPY ["with space", "/d"]
EXPOSE 80 443/tcp
VOLUME ["/data"]
SHELL ["/bin/bash", "-c"]
HEALTHCHECK --interval=5s CMD true
"#;
    use Instruction as I;
    let found = parse(text);
    assert_eq!(found[0], I::Arg(vec![("BASE".into(), Some("alpine".into()))]));
    assert_eq!(
        found[1],
        I::From { image: "$BASE".into(), name: Some("build".into()), platform: Some("linux/amd64".into()) }
    );
    assert_eq!(found[2], I::Env(vec![pair("A", "1"), pair("B", "\"two words\""), pair("C", "x\\ y")]));
    assert_eq!(found[3], I::Env(vec![pair("OLD", "some value")]));
    assert_eq!(found[4], I::Run(Command::Shell("echo one     && echo two".into())));
    assert_eq!(found[5], I::Run(Command::Exec(vec!["/bin/true".into(), "x".into()])));
    assert_eq!(found[6], I::Cmd(Command::Shell("[not json]".into())));
    assert_eq!(
        found[8],
        I::Copy(Transfer {
            sources: vec!["a".into(), "b".into()],
            destination: "/c/".into(),
            from: Some("build".into()),
            chown: Some("1:2".into()),
            chmod: Some("755".into()),
            ..Transfer::default()
        })
    );
    let I::Copy(copy) = &found[9] else { panic!("{:?}", found[9]) };
    assert_eq!(copy.sources, ["with space"]);
    assert_eq!(found[11], I::Volume(vec!["/data".into()]));
    assert!(matches!(found[13], I::Ignored(_)));
}

#[test]
fn reads_other_escapes_and_line_ends() {
    let found = parse("# escape=`\r\nFROM a\r\nRUN one `\r\n  two\r\nRUN c:\\\r\n");
    assert_eq!(found[1], Instruction::Run(Command::Shell("one   two".into())));
    assert_eq!(found[2], Instruction::Run(Command::Shell("c:\\".into())));
    assert!(wrong("# escape=x\nFROM a").contains("escape character"));
}

#[test]
fn reads_here_documents() {
    let found = parse(
        "FROM a\nRUN <<EOF\necho $x\n# kept\nEOF\nRUN cat <<-'E' > /f\n\tone\n\tE\nCOPY <<a <<'b' /d/\n1\na\n2\nb\n",
    );
    assert_eq!(found[1], Instruction::Run(Command::Shell("echo $x\n# kept\n".into())));
    assert_eq!(found[2], Instruction::Run(Command::Shell("cat <<-'E' > /f\n\tone\nE".into())));
    let Instruction::Copy(copy) = &found[3] else { panic!() };
    assert_eq!(copy.inline[0], Inline { name: "a".into(), content: "1\n".into(), expand: true });
    assert_eq!(copy.inline[1], Inline { name: "b".into(), content: "2\n".into(), expand: false });
    assert_eq!(
        parse("FROM a\nRUN echo $((1<<2)) <<<x")[1],
        Instruction::Run(Command::Shell("echo $((1<<2)) <<<x".into()))
    );
    assert!(wrong("FROM a\nRUN <<EOF\nx").contains("not ended by EOF"));
}

#[test]
fn says_what_is_wrong() {
    assert_eq!(wrong("# nothing"), "the Dockerfile has no instructions");
    assert!(wrong("RUN x\nFROM a").starts_with("line 1: the first instruction must be FROM"));
    assert!(wrong("ARG x").contains("must be FROM"));
    assert_eq!(wrong("FROM a\nFOO x"), "line 2: unknown instruction FOO");
    assert_eq!(wrong("FROM a\n\nCOPY x"), "line 3: COPY needs at least one source and a destination");
    assert_eq!(wrong("FROM a\nRUN --mount=type=cache x"), "line 2: RUN --mount is not supported");
    assert_eq!(wrong("FROM a\nENV =x"), "line 2: ENV needs a name before =");
    assert_eq!(wrong("FROM a b"), "line 1: FROM needs an image, and optionally AS name");
    assert_eq!(wrong("FROM a\nSHELL sh"), "line 2: SHELL needs a JSON array such as [\"/bin/sh\", \"-c\"]");
    assert_eq!(wrong("FROM a\nONBUILD RUN x"), "line 2: ONBUILD is not supported");
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,200}") {
        let _ = Dockerfile::parse(&text);
    }

    #[test]
    fn never_panics_on_likely_text(lines in proptest::collection::vec(
        ("(FROM|RUN|COPY|ENV|ARG|LABEL|ADD|CMD|SHELL|VOLUME|#|# escape=`|EOF)", "[ a-c=\"'\\[\\]\\\\$\\{\\}<-]{0,20}(<<EOF)?"), 0..8)) {
        let text: String = lines.iter().map(|(keyword, rest)| format!("{keyword} {rest}\n")).collect();
        let _ = Dockerfile::parse(&text);
    }
}
