//! The API's rules for pods, for manifests that the node reads by itself.

use std::sync::{Arc, OnceLock};

use node::PodRules;
use registry::{Registry, ResourceDef, validate_meta};
use serde_json::Value;
use types::FieldErrors;

/// The rules, out of a registry that is made when the first manifest is read: most nodes have none.
pub struct Rules {
    registry: OnceLock<Arc<Registry>>,
    make: Box<dyn Fn() -> Arc<Registry> + Send + Sync>,
}

impl Rules {
    /// `make` gives the registry.
    pub fn new(make: impl Fn() -> Arc<Registry> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { registry: OnceLock::new(), make: Box::new(make) })
    }

    fn with<T>(&self, work: impl FnOnce(&Registry, &ResourceDef) -> Result<T, String>) -> Result<T, String> {
        let registry = self.registry.get_or_init(|| (self.make)());
        let def = registry.find("", "v1", "pods").ok_or("pods are not known here")?;
        work(registry, def)
    }
}

impl PodRules for Rules {
    fn read(&self, text: &str) -> Result<Vec<Value>, String> {
        let mut document: Value = serde_norway::from_str(text).map_err(|e| e.to_string())?;
        let said = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let pods = match (said(&document, "apiVersion").as_str(), said(&document, "kind").as_str()) {
            ("v1", "Pod") => vec![document],
            ("v1", "PodList" | "List") => match document["items"].take() {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            ("", _) | (_, "") => return Err("Object 'Kind' or 'apiVersion' is missing".to_owned()),
            (version, kind) => return Err(format!("invalid pod: it is a {kind} of {version}")),
        };
        self.with(|registry, def| {
            let schema = def.schema.ok_or("pods are not known here")?;
            let fitted = pods.into_iter().map(|mut pod| {
                match registry.definitions().decode(schema, &mut pod).mismatch {
                    Some(mismatch) => Err(mismatch),
                    None => Ok(pod),
                }
            });
            fitted.collect()
        })
    }

    fn finish(&self, mut pod: Value) -> Result<Value, String> {
        self.with(|_, def| {
            def.strategy.default(&mut pod);
            def.strategy.prepare_create(&mut pod);
            let mut errors = FieldErrors::new();
            validate_meta(def, &pod, &mut errors);
            def.strategy.validate_create(&pod, &mut errors);
            if errors.is_empty() { Ok(pod) } else { Err(format!("invalid pod: {errors}")) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_filled_in_and_checked_as_the_api_does() {
        let rules = Rules::new(|| Arc::new(Registry::builtin()));
        let read = |text: &str| rules.read(text);
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: n}\nspec:\n  odd: 1\n  containers:\n  - {name: c, image: 'i:1'}\n";
        let pod = read(text).unwrap().remove(0);
        assert!(pod["spec"]["odd"].is_null());
        let pod = rules.finish(pod).unwrap();
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
        assert_eq!(
            (&pod["status"]["phase"], &pod["status"]["qosClass"]),
            (&"Pending".into(), &"BestEffort".into())
        );
        assert!(pod["spec"]["serviceAccountName"].is_null());
        let bad = read(&text.replace("image: 'i:1'", "imagePullPolicy: Never")).unwrap().remove(0);
        let fault = rules.finish(bad).unwrap_err();
        assert_eq!(fault, "invalid pod: spec.containers[0].image: Required value");
        assert!(read("apiVersion: v1\nkind: Secret\n").unwrap_err().contains("it is a Secret of v1"));
        assert!(read("spec: {}\n").unwrap_err().contains("missing"));
        assert!(read("{a: [").is_err());
        let wrong = text.replace("containers:\n  - {name: c, image: 'i:1'}", "containers: 7");
        assert!(read(&wrong).unwrap_err().starts_with("json: cannot unmarshal number"));
        let list = "apiVersion: v1\nkind: PodList\nitems:\n- {metadata: {name: a}, spec: {}}\n- {metadata: {name: b}}\n";
        assert_eq!(read(list).unwrap().len(), 2);
    }
}
