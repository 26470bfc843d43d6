use cri::LinuxContainerResources;
use runtime::Resources;

/// Limits; zero and nothing mean "as it is". Of what only cgroup v2 has (`unified`) it is heard whether all processes end
/// together when memory runs out; the rest of it and swap are left out.
pub(crate) fn resources(from: &LinuxContainerResources) -> Resources {
    let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Resources {
        cpu_shares: positive(from.cpu_shares),
        cpu_quota_us: Some(from.cpu_quota).filter(|quota| *quota != 0),
        cpu_period_us: positive(from.cpu_period),
        memory_limit: positive(from.memory_limit_in_bytes),
        pids_limit: None,
        oom_score_adj: Some(from.oom_score_adj.clamp(-1000, 1000) as i32),
        cpuset_cpus: text(&from.cpuset_cpus),
        cpuset_mems: text(&from.cpuset_mems),
        single_process_oom_kill: from.unified.get("memory.oom.group").is_none_or(|value| value != "1"),
        huge_pages: from.hugepage_limits.iter().map(|page| (page.page_size.clone(), page.limit)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit_and_below_zero_is_all() {
        let none = resources(&LinuxContainerResources::default());
        let apart =
            Resources { oom_score_adj: Some(0), single_process_oom_kill: true, ..Resources::default() };
        assert_eq!(none, apart);
        let some = resources(&LinuxContainerResources {
            cpu_quota: -1,
            cpu_shares: 512,
            memory_limit_in_bytes: 1 << 20,
            oom_score_adj: -997,
            cpuset_cpus: "0-1".to_owned(),
            unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        });
        assert_eq!(
            (some.cpu_quota_us, some.cpu_shares, some.memory_limit),
            (Some(-1), Some(512), Some(1 << 20))
        );
        assert!(!some.single_process_oom_kill);
        assert_eq!((some.oom_score_adj, some.cpuset_cpus.as_deref()), (Some(-997), Some("0-1")));
    }
}
