//! APIServices (kubernetes/kubernetes, `kube-aggregator/pkg/apis/apiregistration/validation`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_subdomain, dns1035_label, set_default};

use super::admissionregistration::webhook_service;
use super::check::*;
use super::pod_spec::each;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct ApiService;

impl Strategy for ApiService {
    fn default(&self, object: &mut Value) {
        if let Some(service) = types::at_mut(object, &["spec", "service"]) {
            set_default(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        // What is served here needs no other server to be up.
        object["status"] = if has(&object["spec"], "service") {
            json!({})
        } else {
            let now = object["metadata"]["creationTimestamp"].clone();
            json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available", "lastTransitionTime": now}]})
        };
        each(&mut object["status"], "conditions").for_each(|condition| {
            if condition["lastTransitionTime"].is_null() {
                types::object(condition).remove("lastTransitionTime");
            }
        });
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        let meta = Path::new("metadata");
        let name = text(&object["metadata"], "name");
        let wanted = format!("{version}.{group}");
        if name != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.invalid(&meta.child("name"), name, &why);
        }
        if group.is_empty() {
            if version != "v1" {
                errors.required(
                    &SPEC.child("group"),
                    "only v1 may have an empty group and it better be legacy kube",
                );
            }
        } else {
            name_is(group, dns_subdomain, &SPEC.child("group"), errors);
        }
        name_is(version, dns1035_label, &SPEC.child("version"), errors);
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let n = int(spec, field);
            if n <= 0 || n > most {
                let why = format!("must be positive and less than {most}");
                errors.invalid(&SPEC.child(field), n, &why);
            }
        }
        let bundle = !text(spec, "caBundle").is_empty();
        let insecure = flag(spec, "insecureSkipTLSVerify");
        match get(spec, "service") {
            None => {
                if bundle {
                    let shown = text(spec, "caBundle").len();
                    let why = "local APIServices may not have a caBundle";
                    errors.invalid(&SPEC.child("caBundle"), format!("{shown} bytes"), why);
                }
                if insecure {
                    let why = "local APIServices may not have insecureSkipTLSVerify";
                    errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, why);
                }
            }
            Some(service) => {
                webhook_service(service, &SPEC.child("service"), errors);
                if insecure && bundle {
                    let why = "may not be true if caBundle is present";
                    errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, why);
                }
            }
        }
    }

    fn validate_name(&self, name: &str) -> Option<String> {
        types::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::API_SERVICE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::api_service_cells(object, now)
    }
}
