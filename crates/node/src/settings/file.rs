//! A `KubeletConfiguration` out of files: strictly read, drop-ins merged over it (kubernetes/kubernetes,
//! `pkg/kubelet/kubeletconfig/configfiles`, `cmd/kubelet/app/server.go`, `mergeKubeletConfigurations`).

use serde_json::{Map, Value};

use super::KubeletSettings;
use super::fields::{FIELDS, NOT_HONOURED};

const VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// A configuration that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Something else.
    #[error("it is no {KIND} of {VERSION}, but {0}")]
    Kind(String),
    /// Fields that nobody knows.
    #[error("strict decoding error: {}", .0.iter().map(|f| format!("unknown field {f:?}")).collect::<Vec<_>>().join(", "))]
    Unknown(Vec<String>),
    /// A value that is something else.
    #[error("json: cannot unmarshal {value} into Go struct field {KIND}.{field} of type {expected}")]
    Type {
        /// Which.
        field: &'static str,
        /// As given.
        value: String,
        /// What should be there.
        expected: &'static str,
    },
    /// Settings that do not go together.
    #[error("failed to validate kubelet configuration, error: {}", .0.join(", "))]
    Invalid(Vec<String>),
}

impl KubeletSettings {
    /// Puts what a configuration says over what is there. `documents` are the file and then its drop-ins, each laid over
    /// those before it. Gives the fields that are said and that the agent does nothing with.
    ///
    /// # Errors
    /// When one of them is something else, or says what nobody knows.
    pub fn read(&mut self, documents: &[Value]) -> Result<Vec<String>, SettingsError> {
        let mut whole = Value::Object(Map::new());
        for document in documents {
            let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
            let (version, kind) = (text("apiVersion"), text("kind"));
            if (version.as_str(), kind.as_str()) != (VERSION, KIND) {
                return Err(SettingsError::Kind(format!("{kind:?} of {version:?}")));
            }
            types::patch::merge_patch(&mut whole, document.clone());
        }
        let (mut unknown, mut idle) = (Vec::new(), Vec::new());
        sort_out("", &whole, &mut unknown, &mut idle);
        unknown.sort_unstable();
        idle.sort_unstable();
        if !unknown.is_empty() {
            return Err(SettingsError::Unknown(unknown));
        }
        for field in FIELDS {
            let Some(value) = at(&whole, field.name) else { continue };
            (field.set)(self, value).map_err(|expected| SettingsError::Type {
                field: field.name,
                value: value.to_string(),
                expected,
            })?;
        }
        Ok(idle)
    }
}

/// The value at a path; nothing is what was not said.
fn at<'a>(of: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(of, |value, name| value.get(name)).filter(|value| !value.is_null())
}

/// Finds what nobody knows, and what nothing is done with.
fn sort_out(prefix: &str, value: &Value, unknown: &mut Vec<String>, idle: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let inside = format!("{path}.");
        if (prefix.is_empty() && matches!(name.as_str(), "apiVersion" | "kind"))
            || FIELDS.iter().any(|field| field.name == path)
        {
            continue;
        }
        if NOT_HONOURED.contains(&path.as_str()) {
            idle.push(path);
        } else if FIELDS.iter().any(|field| field.name.starts_with(&inside)) {
            sort_out(&path, value, unknown, idle);
        } else {
            unknown.push(path);
        }
    }
}

/// The settings as a `KubeletConfiguration`.
pub(super) fn show(settings: &KubeletSettings) -> Value {
    let mut shown = serde_json::json!({"kind": KIND, "apiVersion": VERSION});
    for field in FIELDS {
        let value = (field.show)(settings);
        if value.is_null() {
            continue;
        }
        let place = field.name.split('.').fold(&mut shown, |place, name| &mut place[name]);
        *place = value;
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::settings::Authorization;
    use crate::shutdown::Share;

    fn document(mut fields: Value) -> Value {
        fields["apiVersion"] = VERSION.into();
        fields["kind"] = KIND.into();
        fields
    }

    fn read(documents: &[Value]) -> Result<(KubeletSettings, Vec<String>), SettingsError> {
        let mut settings = KubeletSettings::default();
        let idle = settings.read(documents)?;
        Ok((settings, idle))
    }

    #[test]
    fn drop_ins_lie_over_the_file() {
        let file = document(json!({
            "staticPodPath": "/m", "shutdownGracePeriod": "30s", "evictionSoft": {"memory.available": "1Gi"},
            "authentication": {"anonymous": {"enabled": true}}, "maxPods": 7, "podsPerCore": 3,
            "cpuManagerPolicy": "static", "reservedSystemCPUs": "0-1",
            "kubeReserved": {"pid": "9"}, "podPidsLimit": 50,
            "reservedMemory": [{"numaNode": 0, "limits": {"memory": "1Gi"}}],
        }));
        let drop_in = document(json!({
            "staticPodPath": null, "shutdownGracePeriod": "1m0s", "evictionSoft": {"pid.available": "5%"},
            "authorization": {"mode": "AlwaysAllow"},
        }));
        let (settings, idle) = read(&[file, drop_in]).unwrap();
        assert_eq!(settings.static_pod_path, None);
        assert_eq!(settings.shutdown.grace_period, Duration::from_secs(60));
        assert_eq!(settings.eviction_soft.len(), 2);
        assert!(settings.anonymous && settings.authorization == Authorization::AlwaysAllow);
        assert_eq!((settings.max_pods, settings.managers.cpu_manager_policy.as_str()), (7, "static"));
        assert_eq!(settings.managers.reserved_memory[&0]["memory"], 1 << 30);
        assert_eq!(
            (settings.reservations.reserved(2).unwrap().pids, settings.reservations.pod_pids()),
            (9, Some(50))
        );
        assert_eq!(idle, ["podsPerCore"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fault = |fields: Value| read(&[document(fields)]).unwrap_err().to_string();
        assert_eq!(
            fault(json!({"staticPodPaht": "/m", "authentication": {"x": 1}})),
            "strict decoding error: unknown field \"authentication.x\", unknown field \"staticPodPaht\""
        );
        assert_eq!(
            fault(json!({"shutdownGracePeriod": 30})),
            "json: cannot unmarshal 30 into Go struct field KubeletConfiguration.shutdownGracePeriod of type Duration, such as 1m30s"
        );
        assert!(fault(json!({"authorization": {"mode": "Maybe"}})).contains("AlwaysAllow or Webhook"));
        let share = json!({"shutdownGracePeriodByPodPriority": [{"priorty": 3}]});
        assert!(fault(share).contains("[]ShutdownGracePeriodByPodPriority"));
        let other = read(&[json!({"kind": "Pod", "apiVersion": "v1"})]).unwrap_err().to_string();
        assert!(other.contains("but \"Pod\" of \"v1\""), "{other}");
    }

    #[test]
    fn what_is_shown_can_be_read() {
        let mut settings = KubeletSettings {
            static_pod_path: Some("/m".into()),
            rotate_certificates: true,
            eviction_max_pod_grace_period: 9,
            ..KubeletSettings::default()
        };
        settings.shutdown.grace_period_by_pod_priority = vec![Share { priority: -3, seconds: 4 }];
        settings.containers.log_max_size = 3 << 20;
        settings.containers.single_process_oom_kill = Some(true);
        settings.containers.cpu_cfs_quota = false;
        settings.registration.taints = vec![crate::settings::parse_taint("a=b:NoSchedule").unwrap()];
        settings.registration.status_max_images = None;
        let (again, idle) = read(&[show(&settings)]).unwrap();
        assert_eq!(again.containers, settings.containers);
        assert_eq!(again.registration, settings.registration);
        assert!(idle.is_empty());
        assert_eq!(show(&again), show(&settings));
    }

    #[test]
    fn no_field_is_in_both_lists() {
        for field in FIELDS {
            let idle = |name: &&&str| **name == field.name || field.name.starts_with(&format!("{name}."));
            assert_eq!(NOT_HONOURED.iter().find(idle), None, "{}", field.name);
        }
    }
}
