//! Pods as a job makes them.

use client::PodView;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;

use super::ask::*;
use super::policy::counts;
use crate::common::template::pod_of;

/// So long may the start of a generated name be (apiserver, `pkg/storage/names`, `MaxGeneratedNameLength`).
const LONGEST: usize = 58;

/// A pod for an index, or for none, in the place of one that failed.
pub(super) fn pod(job: &Job, spec: &JobSpec, index: Option<u32>, replaced: Option<&PodView>) -> Pod {
    let mut pod = pod_of(job, &spec.template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    let Some(index) = index else { return pod };
    let name = job.name_any();
    pod.metadata.generate_name = Some(generate_name(&name, index));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let (failures, ignored) = failures(spec, replaced);
        annotations.insert(FAILURES.into(), failures.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.into(), ignored.to_string());
        }
    }
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
    }
    pod
}

fn generate_name(job: &str, index: u32) -> String {
    let end = format!("-{index}-");
    let room = LONGEST.saturating_sub(end.len());
    format!("{}{end}", job.get(..room).unwrap_or(job))
}

/// How often the index has failed, and how often besides in ways that do not count.
fn failures(spec: &JobSpec, replaced: Option<&PodView>) -> (i32, i32) {
    let Some(replaced) = replaced else { return (0, 0) };
    let (counted, ignored) = earlier_failures(replaced);
    if counts(spec, replaced) {
        (counted.saturating_add(1), ignored)
    } else {
        (counted, ignored.saturating_add(1))
    }
}

fn tell_index(container: &mut Container) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let env = container.env.get_or_insert_default();
    if env.iter().any(|v| v.name == NAME) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    let from = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    env.push(EnvVar { name: NAME.into(), value_from: Some(from), ..EnvVar::default() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_of_an_index_tell_it() {
        let job: Job = testkit::object(json!({"metadata": {"name": "work", "uid": "u"}, "spec": {
            "completionMode": "Indexed", "backoffLimitPerIndex": 1, "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}], "initContainers": [{"name": "d", "env":
                    [{"name": "JOB_COMPLETION_INDEX", "value": "own"}]}]}}}}));
        let failed: PodView =
            testkit::object(json!({"metadata": {"annotations": {FAILURES: "2", IGNORED: "1"}}}));
        let made = pod(&job, job.spec.as_ref().unwrap(), Some(7), Some(&failed));
        assert_eq!(made.metadata.generate_name.as_deref(), Some("work-7-"));
        assert_eq!(made.metadata.labels.as_ref().unwrap()[INDEX], "7");
        let annotations = made.metadata.annotations.unwrap();
        assert_eq!(
            (annotations[INDEX].as_str(), annotations[FAILURES].as_str(), annotations[IGNORED].as_str()),
            ("7", "3", "1")
        );
        assert_eq!(made.metadata.finalizers.unwrap(), [FINALIZER]);
        let spec = made.spec.unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("work-7"));
        let own = spec.init_containers.unwrap().remove(0).env.unwrap();
        assert_eq!(own[0].value.as_deref(), Some("own"));
        let told = spec.containers[0].env.as_ref().unwrap()[0].value_from.as_ref().unwrap();
        let path = &told.field_ref.as_ref().unwrap().field_path;
        assert_eq!(path, "metadata.labels['batch.kubernetes.io/job-completion-index']");
        let long = generate_name(&"x".repeat(63), 12345);
        assert_eq!((long.len(), long.ends_with("x-12345-")), (58, true));
    }
}
