//! Configuration files that are read again when they change: the last good one counts (kubernetes/kubernetes,
//! `pkg/kubeapiserver/options`, `apiserver/pkg/server/options/{authentication,authorization}config`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use types::FieldErrors;

use crate::metrics::Text;
use crate::state::Inner;

/// A configuration file, and how often it is looked at.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Which.
    pub path: PathBuf,
    /// How soon a change is seen.
    pub every: Duration,
}

impl ConfigFile {
    /// A file that is looked at every few seconds.
    pub fn new(path: PathBuf) -> Self {
        Self { path, every: Duration::from_secs(3) }
    }
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    /// It is something else.
    #[error("it is no YAML: {0}")]
    Yaml(String),
    /// It is of another kind or version.
    #[error("it is no {wanted} of apiserver.config.k8s.io/v1 or v1beta1, but {kind:?} of {version:?}")]
    Kind {
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        kind: String,
        /// Of which version.
        version: String,
    },
    /// What is wrong with its fields.
    #[error("{0}")]
    Fields(FieldErrors),
    /// It says something that is said elsewhere, too.
    #[error("{0}")]
    Together(&'static str),
}

/// The form of a part of a file.
pub(crate) enum Form {
    Text,
    Flag,
    Time,
    Object(&'static [(&'static str, Form)]),
    List(&'static Form),
}

/// Reads a file's text as a configuration of some kind and form.
pub(crate) fn read(text: &str, wanted: &'static str, form: &Form) -> Result<Value, ConfigFileError> {
    let value: Value = serde_norway::from_str(text).map_err(|e| ConfigFileError::Yaml(e.to_string()))?;
    let field = |name: &str| value[name].as_str().unwrap_or_default();
    let known =
        ["v1", "v1beta1"].iter().any(|v| field("apiVersion") == format!("apiserver.config.k8s.io/{v}"));
    if field("kind") != wanted || !known {
        let (kind, version) = (field("kind").to_owned(), field("apiVersion").to_owned());
        return Err(ConfigFileError::Kind { wanted, kind, version });
    }
    let mut errors = FieldErrors::new();
    fit(form, &value, "", &mut errors);
    if errors.is_empty() { Ok(value) } else { Err(ConfigFileError::Fields(errors)) }
}

fn fit(form: &Form, value: &Value, path: &str, errors: &mut FieldErrors) {
    let mut wrong = |what: &str| {
        errors.add("FieldValueTypeInvalid", path, format!("Invalid value: {value}: must be {what}"));
    };
    match (form, value) {
        (_, Value::Null) | (Form::Text, Value::String(_)) | (Form::Flag, Value::Bool(_)) => {}
        (Form::Time, _) => {
            if time(value).is_none() {
                wrong("a duration such as 3s");
            }
        }
        (Form::List(form), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                fit(form, item, &format!("{path}[{i}]"), errors);
            }
        }
        (Form::Object(fields), Value::Object(map)) => {
            for (name, value) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match fields.iter().find(|(known, _)| known == name) {
                    Some((_, form)) => fit(form, value, &path, errors),
                    None => errors.add("FieldValueForbidden", path, "unknown field"),
                }
            }
        }
        (Form::Text, _) => wrong("a text"),
        (Form::Flag, _) => wrong("true or false"),
        (Form::List(_), _) => wrong("a list"),
        (Form::Object(_), _) => wrong("an object"),
    }
}

/// A duration in nanoseconds.
pub(crate) fn time(value: &Value) -> Option<i64> {
    cel::Duration::parse(value.as_str()?).map(|d| d.0)
}

/// What was read again, and whether it could be used.
type Reload = (&'static str, &'static str);

/// How often files were read again, and when last.
#[derive(Default)]
pub(crate) struct Reloads(Mutex<BTreeMap<Reload, (u64, f64)>>);

impl Reloads {
    fn note(&self, what: &'static str, status: &'static str, now: f64) {
        let mut known = self.0.lock();
        let (count, at) = known.entry((what, status)).or_default();
        (*count, *at) = (*count + 1, now);
    }

    pub(crate) fn text(&self, out: &mut Text) {
        let known = self.0.lock();
        for what in ["authentication", "authorization"] {
            let mine = || known.iter().filter(|((w, _), _)| *w == what);
            if mine().next().is_none() {
                continue;
            }
            let name =
                |what: &str, rest: &str| format!("apiserver_{what}_config_controller_automatic_{rest}");
            out.family(
                &name(what, "reloads_total"),
                "counter",
                "Times that the configuration file was read again.",
            );
            for ((_, status), (count, _)) in mine() {
                out.sample(&format!("status=\"{status}\""), *count as f64);
            }
            let help = "When the configuration file was read again last, in seconds of Unix time.";
            out.family(&name(what, "reload_last_timestamp_seconds"), "gauge", help);
            for ((_, status), (_, at)) in mine() {
                out.sample(&format!("status=\"{status}\""), *at);
            }
        }
    }
}

/// Follows a file: what it says is applied when it changes, if it makes sense.
pub(crate) fn follow(
    server: &Arc<Inner>,
    file: ConfigFile,
    what: &'static str,
    mut last: String,
    apply: fn(&Inner, &str) -> Result<(), ConfigFileError>,
) {
    let weak = Arc::downgrade(server);
    server.drain.spawn_until_started(async move {
        let mut ticks = tokio::time::interval(file.every);
        let mut unreadable = false;
        loop {
            ticks.tick().await;
            let Some(server) = weak.upgrade() else { return };
            let outcome = match std::fs::read_to_string(&file.path) {
                Ok(text) if text == last => continue,
                Ok(text) => {
                    unreadable = false;
                    last = text;
                    apply(&server, &last)
                }
                // It may be on its way to another place; told once.
                Err(_) if unreadable => continue,
                Err(error) => {
                    unreadable = true;
                    Err(error.into())
                }
            };
            let path = file.path.display();
            let status = match &outcome {
                Ok(()) => {
                    tracing::info!(%path, "the {what} configuration has changed");
                    "success"
                }
                Err(error) => {
                    tracing::error!(%path, %error, "the {what} configuration cannot be used; the one before it stays");
                    "failure"
                }
            };
            server.reloads.note(what, status, server.config.clock.now().as_second() as f64);
        }
    });
}
