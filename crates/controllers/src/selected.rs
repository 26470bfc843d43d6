use std::str::FromStr;

use crate::context::CONTROLLERS;

/// Which controllers run, as `--controllers` of kube-controller-manager says it: names, `-name` for those that do not, and
/// `*` for all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected(Vec<String>);

/// No controller is called so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not in the list of known controllers: {}", known.join(", "))]
pub struct UnknownController {
    name: String,
    known: Vec<&'static str>,
}

impl FromStr for Selected {
    type Err = UnknownController;

    fn from_str(text: &str) -> Result<Self, UnknownController> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let known = |name: &str| {
            let name = name.strip_prefix('-').unwrap_or(name);
            name == "*" || CONTROLLERS.iter().any(|(known, ..)| *known == name)
        };
        match names.iter().find(|name| !known(name)) {
            Some(unknown) => {
                let known = CONTROLLERS.iter().map(|(name, ..)| *name).collect();
                Err(UnknownController { name: unknown.clone(), known })
            }
            None => Ok(Self(names)),
        }
    }
}

impl Selected {
    /// Whether a controller runs. What is said of itself counts more than what is said of all.
    pub(crate) fn has(&self, name: &str) -> bool {
        let says = |wanted: &str| self.0.iter().any(|said| said == wanted);
        self.0.is_empty() || says(name) || (says("*") && !says(&format!("-{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_or_all_but_some() {
        let runs = |text: &str, name: &str| text.parse::<Selected>().unwrap().has(name);
        assert!(Selected::default().has("job-controller"));
        assert!(runs("*", "job-controller") && !runs("*,-job-controller", "job-controller"));
        assert!(runs("*,-job-controller", "cronjob-controller"));
        assert!(runs("job-controller", "job-controller") && !runs("job-controller", "cronjob-controller"));
        let error = "*,-jobs".parse::<Selected>().unwrap_err().to_string();
        assert!(error.starts_with("\"-jobs\" is not in the list of known controllers: "), "{error}");
    }
}
