//! Filters for system calls, from the default profile or one in the OCI runtime format.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde::Deserialize;
use sys::CapSet;

use super::seccomp_default;
use crate::spec::Seccomp;

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("not understood: {0}")]
    Format(#[from] serde_json::Error),
    #[error("action {0:?} is not supported")]
    Action(String),
    #[error("comparison {0:?} is not supported")]
    Comparison(String),
    #[error("argument number {0} is not between 0 and 5")]
    Index(u64),
    #[error("build the filter: {0}")]
    Build(#[from] seccompiler::BackendError),
    #[error(transparent)]
    Install(#[from] sys::Error),
}

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Allow,
    Errno(u32),
    Kill,
    KillThread,
    Log,
    Trap,
    Trace(u32),
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Only these bits.
    Masked(u64),
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) index: u8,
    pub(super) compare: Compare,
    pub(super) value: u64,
}

/// What happens to some system calls if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    action: Action,
    numbers: Vec<i64>,
    arguments: Vec<Argument>,
}

impl Rule {
    /// Names that this architecture lacks are left out.
    pub(super) fn new<'a>(
        action: Action,
        names: impl IntoIterator<Item = &'a str>,
        arguments: Vec<Argument>,
    ) -> Self {
        Self { action, numbers: names.into_iter().filter_map(sys::syscall_number).collect(), arguments }
    }
}

/// A list of rules, and what happens where none holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) default: Action,
    pub(super) rules: Vec<Rule>,
}

/// The filters to install, in order.
pub(super) fn compile(seccomp: &Seccomp, capabilities: CapSet) -> Result<Vec<BpfProgram>, SeccompError> {
    match seccomp {
        Seccomp::Unconfined => Ok(Vec::new()),
        Seccomp::Default => filters(&seccomp_default::profile(capabilities)),
        Seccomp::Profile(json) => filters(&parse(json)?),
    }
}

/// The profile in the OCI runtime format; none if everything is allowed.
pub(super) fn written(seccomp: &Seccomp, capabilities: CapSet) -> Option<serde_json::Value> {
    match seccomp {
        Seccomp::Unconfined => None,
        Seccomp::Profile(json) => Some(json.clone()),
        Seccomp::Default => Some(write(&seccomp_default::profile(capabilities))),
    }
}

fn write(profile: &Profile) -> serde_json::Value {
    use serde_json::json;
    let names: BTreeMap<i64, &str> =
        sys::syscall_names().filter_map(|name| Some((sys::syscall_number(name)?, name))).collect();
    let action = |action: Action| match action {
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Errno(number) => ("SCMP_ACT_ERRNO", Some(number)),
        Action::Kill => ("SCMP_ACT_KILL_PROCESS", None),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::Log => ("SCMP_ACT_LOG", None),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::Trace(number) => ("SCMP_ACT_TRACE", Some(number)),
    };
    let argument = |argument: &Argument| {
        let (op, value, second) = match argument.compare {
            Compare::Equal => ("SCMP_CMP_EQ", argument.value, 0),
            Compare::NotEqual => ("SCMP_CMP_NE", argument.value, 0),
            Compare::Less => ("SCMP_CMP_LT", argument.value, 0),
            Compare::LessOrEqual => ("SCMP_CMP_LE", argument.value, 0),
            Compare::Greater => ("SCMP_CMP_GT", argument.value, 0),
            Compare::GreaterOrEqual => ("SCMP_CMP_GE", argument.value, 0),
            Compare::Masked(bits) => ("SCMP_CMP_MASKED_EQ", bits, argument.value),
        };
        json!({"index": argument.index, "op": op, "value": value, "valueTwo": second})
    };
    let rules: Vec<serde_json::Value> = profile
        .rules
        .iter()
        .map(|rule| {
            let (name, errno) = action(rule.action);
            let calls: Vec<&str> =
                rule.numbers.iter().filter_map(|number| names.get(number).copied()).collect();
            let arguments: Vec<serde_json::Value> = rule.arguments.iter().map(argument).collect();
            let mut written = json!({"names": calls, "action": name, "args": arguments});
            if let Some(errno) = errno {
                written["errnoRet"] = errno.into();
            }
            written
        })
        .collect();
    let (default, errno) = action(profile.default);
    let mut written = json!({"defaultAction": default, "syscalls": rules});
    if let Some(errno) = errno {
        written["defaultErrnoRet"] = errno.into();
    }
    written
}

/// Installs the filters; none of them can be taken back. (The crate's own function also forbids to gain
/// privileges, which is not ours to decide here.)
pub(super) fn install(filters: &[BpfProgram]) -> Result<(), SeccompError> {
    for filter in filters {
        let insns: Vec<_> = filter.iter().map(|insn| (insn.code, insn.jt, insn.jf, insn.k)).collect();
        sys::install_filter(&insns)?;
    }
    Ok(())
}

/// One filter of the crate knows one action besides the default, so a profile becomes several: the first lets
/// through whatever any rule names, each further one stops what its action is for. The kernel runs them all and
/// takes the strictest answer, and among equally strict ones that of the last.
fn filters(profile: &Profile) -> Result<Vec<BpfProgram>, SeccompError> {
    let mut programs = Vec::new();
    if profile.default != Action::Allow {
        programs.push(filter(profile.rules.iter(), profile.default, Action::Allow)?);
    }
    let mut actions: Vec<Action> = profile.rules.iter().map(|rule| rule.action).collect();
    actions.sort();
    actions.dedup();
    for action in actions.into_iter().filter(|action| !matches!(action, Action::Allow)) {
        programs.push(filter(
            profile.rules.iter().filter(|rule| rule.action == action),
            Action::Allow,
            action,
        )?);
    }
    Ok(programs)
}

fn filter<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    otherwise: Action,
    matched: Action,
) -> Result<BpfProgram, SeccompError> {
    // `None` is "whatever the arguments".
    let mut by_number: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for rule in rules {
        for number in &rule.numbers {
            if rule.arguments.is_empty() {
                by_number.insert(*number, None);
            } else if let Some(conditional) = by_number.entry(*number).or_insert_with(|| Some(Vec::new())) {
                conditional.push(SeccompRule::new(conditions(&rule.arguments)?)?);
            }
        }
    }
    let by_number =
        by_number.into_iter().map(|(number, rules)| (number, rules.unwrap_or_default())).collect();
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(by_number, otherwise.into(), matched.into(), arch)?.try_into()?)
}

fn conditions(arguments: &[Argument]) -> Result<Vec<SeccompCondition>, SeccompError> {
    let condition = |argument: &Argument| {
        let compare = match argument.compare {
            Compare::Equal => SeccompCmpOp::Eq,
            Compare::NotEqual => SeccompCmpOp::Ne,
            Compare::Less => SeccompCmpOp::Lt,
            Compare::LessOrEqual => SeccompCmpOp::Le,
            Compare::Greater => SeccompCmpOp::Gt,
            Compare::GreaterOrEqual => SeccompCmpOp::Ge,
            Compare::Masked(bits) => SeccompCmpOp::MaskedEq(bits),
        };
        // The kernel takes arguments of type `int` from half a register; the other half may hold anything.
        let small = u32::try_from(argument.value).is_ok()
            && !matches!(compare, SeccompCmpOp::MaskedEq(bits) if bits > u64::from(u32::MAX));
        let len =
            if small && matches!(argument.compare, Compare::Equal | Compare::NotEqual | Compare::Masked(_)) {
                SeccompCmpArgLen::Dword
            } else {
                SeccompCmpArgLen::Qword
            };
        Ok(SeccompCondition::new(argument.index, len, compare, argument.value)?)
    };
    arguments.iter().map(condition).collect()
}

impl From<Action> for SeccompAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Errno(number) => Self::Errno(number),
            Action::Kill => Self::KillProcess,
            Action::KillThread => Self::KillThread,
            Action::Log => Self::Log,
            Action::Trap => Self::Trap,
            Action::Trace(number) => Self::Trace(number),
        }
    }
}

/// `LinuxSeccomp` of the OCI runtime specification (`config-linux.md`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciProfile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<OciRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciRule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<OciArgument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciArgument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn parse(json: &serde_json::Value) -> Result<Profile, SeccompError> {
    let profile = OciProfile::deserialize(json)?;
    let rules = profile.syscalls.iter().map(|rule| {
        let arguments = rule.args.iter().map(argument).collect::<Result<_, SeccompError>>()?;
        Ok(Rule::new(action(&rule.action, rule.errno_ret)?, rule.names.iter().map(String::as_str), arguments))
    });
    Ok(Profile {
        default: action(&profile.default_action, profile.default_errno_ret)?,
        rules: rules.collect::<Result<_, SeccompError>>()?,
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, SeccompError> {
    const EPERM: u32 = 1;
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_KILL_PROCESS" => Action::Kill,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(EPERM)),
        other => return Err(SeccompError::Action(other.to_owned())),
    })
}

fn argument(from: &OciArgument) -> Result<Argument, SeccompError> {
    let index = u8::try_from(from.index).ok().filter(|n| *n < 6).ok_or(SeccompError::Index(from.index))?;
    let (compare, value) = match from.op.as_str() {
        "SCMP_CMP_EQ" => (Compare::Equal, from.value),
        "SCMP_CMP_NE" => (Compare::NotEqual, from.value),
        "SCMP_CMP_LT" => (Compare::Less, from.value),
        "SCMP_CMP_LE" => (Compare::LessOrEqual, from.value),
        "SCMP_CMP_GT" => (Compare::Greater, from.value),
        "SCMP_CMP_GE" => (Compare::GreaterOrEqual, from.value),
        "SCMP_CMP_MASKED_EQ" => (Compare::Masked(from.value), from.value_two),
        other => return Err(SeccompError::Comparison(other.to_owned())),
    };
    Ok(Argument { index, compare, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_compiles_and_follows_capabilities() {
        let few = compile(&Seccomp::Default, CapSet::EMPTY).unwrap();
        let all = compile(&Seccomp::Default, CapSet::all()).unwrap();
        // Without CAP_SYS_ADMIN, `clone3` has a filter of its own.
        assert_eq!((few.len(), all.len()), (2, 1));
        assert!(few[0].len() < 4096);
    }

    #[test]
    fn oci_profiles_are_read() {
        let json = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                {"names": ["socket"], "action": "SCMP_ACT_KILL",
                 "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        let profile = parse(&json).unwrap();
        assert_eq!(profile.rules[0].action, Action::Errno(13));
        assert_eq!(filters(&profile).unwrap().len(), 2);
        for bad in [
            serde_json::json!({}),
            serde_json::json!({"defaultAction": "SCMP_ACT_DANCE"}),
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for capabilities in [CapSet::EMPTY, CapSet::named(["SYS_ADMIN"]).unwrap()] {
            let profile = seccomp_default::profile(capabilities);
            assert_eq!(parse(&write(&profile)).unwrap(), profile);
        }
    }
}
