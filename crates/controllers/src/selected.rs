use std::str::FromStr;

use crate::context::CONTROLLERS;
use crate::names;

/// Which controllers run, as `--controllers` of kube-controller-manager says it: names, `-name` for those that do not, and
/// `*` for all others. Upstream's former names are taken too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected(Vec<String>);

/// Why a selection of controllers cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No controller is called so.
    #[error("{name:?} is not in the list of known controllers: {}", known.join(", "))]
    Unknown {
        /// What was said.
        name: String,
        /// What could have been.
        known: Vec<&'static str>,
    },
    /// It is a part of the API server.
    #[error("{name:?} cannot be switched off: the API server does its work")]
    Always {
        /// The controller.
        name: String,
    },
}

impl FromStr for Selected {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, SelectionError> {
        text.split(',').map(|name| read(name.trim())).collect::<Result<_, _>>().map(Self)
    }
}

/// What is said of one controller, by its present name.
fn read(said: &str) -> Result<String, SelectionError> {
    let (off, name) = match said.strip_prefix('-') {
        Some(name) => ("-", names::present(name)),
        None => ("", names::present(said)),
    };
    if names::IN_SERVER.contains(&name) && !off.is_empty() {
        return Err(SelectionError::Always { name: name.to_owned() });
    }
    let ours = || CONTROLLERS.iter().map(|(known, ..)| *known).chain(names::IN_SERVER);
    let absent = !off.is_empty() && names::ABSENT.contains(&name);
    if name == "*" || absent || ours().any(|known| known == name) {
        return Ok(format!("{off}{name}"));
    }
    Err(SelectionError::Unknown { name: said.to_owned(), known: ours().collect() })
}

impl Selected {
    /// Whether a controller runs. What is said of itself counts more than what is said of all.
    pub(crate) fn has(&self, name: &str) -> bool {
        let says = |wanted: &str| self.0.iter().any(|said| said == wanted);
        self.0.is_empty() || says(name) || (says("*") && !says(&format!("-{name}")))
    }

    /// The same without this controller, whatever was said of it.
    pub fn without(mut self, name: &str) -> Self {
        if self.0.is_empty() {
            self.0.push("*".to_owned());
        }
        self.0.retain(|said| said != name);
        self.0.push(format!("-{name}"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(text: &str, name: &str) -> bool {
        text.parse::<Selected>().unwrap().has(name)
    }

    #[test]
    fn some_or_all_but_some() {
        assert!(Selected::default().has("job-controller"));
        assert!(runs("*", "job-controller") && !runs("*,-job-controller", "job-controller"));
        assert!(runs("*,-job-controller", "cronjob-controller"));
        assert!(runs("job-controller", "job-controller") && !runs("job-controller", "cronjob-controller"));
        let error = "*,-jobs".parse::<Selected>().unwrap_err().to_string();
        assert!(error.starts_with("\"-jobs\" is not in the list of known controllers: "), "{error}");
        let all = Selected::default().without("job-controller");
        assert!(!all.has("job-controller") && all.has("cronjob-controller"));
        assert!(
            !"job-controller".parse::<Selected>().unwrap().without("job-controller").has("job-controller")
        );
    }

    #[test]
    fn former_names_and_those_of_parts_are_known() {
        // What kubeadm says.
        assert!(runs("*,bootstrapsigner,tokencleaner", "token-cleaner-controller"));
        assert!(!runs("*,-ttl", "ttl-controller") && runs("*,-ttl", "ttl-after-finished-controller"));
        assert!(!runs("*,-endpoint", names::ENDPOINTS) && runs("*,-endpoint", names::SLICES));
        assert!(!runs("*,-taint-eviction-controller", names::EVICTION));
        assert!(runs("*,-route,-service-lb-controller", "job-controller"));
        assert!("*,service-lb-controller".parse::<Selected>().is_err(), "there is none to run");
        assert!(runs("*,resourcequota", "resourcequota-controller"));
        let error = "*,-resourcequota".parse::<Selected>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"resourcequota-controller\" cannot be switched off: the API server does its work"
        );
    }
}
