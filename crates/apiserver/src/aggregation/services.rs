use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use store::{Record, Revision, Snapshot};
use types::str_at;

use super::connections::Trust;
use super::local::Local;

/// One group and version that another server serves.
#[derive(Debug)]
pub(crate) struct Extension {
    /// The APIService's name: `v1.example.com`.
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
    pub(crate) group: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) service: Box<str>,
    pub(crate) port: u16,
    pub(super) trust: Trust,
    /// As the condition says.
    pub(crate) available: bool,
    /// A hash of all but the status.
    pub(super) fingerprint: u64,
    /// The server itself, if it lives in this process.
    pub(super) local: Option<Local>,
}

impl Extension {
    fn of(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let service = types::at(spec, &["service"]).filter(|s| s.is_object())?;
        let text = |value: &Value| -> Box<str> { value.as_str().unwrap_or_default().into() };
        let uid = text(&object["metadata"]["uid"]);
        let mut hasher = DefaultHasher::new();
        (spec.to_string(), &uid).hash(&mut hasher);
        let trust = match (spec["insecureSkipTLSVerify"] == true, str_at(spec, &["caBundle"])) {
            (true, _) => Trust::Anything,
            (false, Some(bundle)) => Trust::Authorities(bundle.into()),
            (false, None) => Trust::Authorities("".into()),
        };
        Some(Self {
            name: text(&object["metadata"]["name"]),
            uid,
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            namespace: text(&service["namespace"]),
            service: text(&service["name"]),
            port: service["port"].as_u64().and_then(|port| port.try_into().ok()).unwrap_or(443),
            trust,
            available: is_available(object),
            fingerprint: hasher.finish(),
            local: None,
        })
    }

    /// One that lives in this process. It is always there, and always the same.
    fn within(local: &Local) -> Self {
        Self {
            name: local.name().into(),
            uid: Box::default(),
            group: local.group.clone(),
            version: local.version.clone(),
            namespace: Box::default(),
            service: Box::default(),
            port: 0,
            trust: Trust::Anything,
            available: true,
            fingerprint: 0,
            local: Some(local.clone()),
        }
    }

    /// Where the version is described.
    pub(crate) fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

pub(super) fn is_available(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Available" && c["status"] == "True")
}

/// What is read of one APIService.
#[derive(Debug)]
struct Entry {
    group: Box<str>,
    version: Box<str>,
    /// How much the group and the version are to be preferred.
    priority: (i64, i64),
    extension: Option<Arc<Extension>>,
    /// Whether it is said of what is served here that it is always there.
    is_marked: bool,
}

impl Entry {
    fn read(record: &Record) -> Self {
        let object: Value = serde_json::from_slice(&record.value).unwrap_or_default();
        let spec = &object["spec"];
        let text = |field: &str| -> Box<str> { spec[field].as_str().unwrap_or_default().into() };
        let number = |field: &str| spec[field].as_i64().unwrap_or_default();
        let extension = Extension::of(&object);
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        Self {
            group: text("group"),
            version: text("version"),
            priority: (number("groupPriorityMinimum"), number("versionPriority")),
            is_marked: extension.is_some()
                || conditions.any(|c| c["type"] == "Available" && c["reason"] == "Local"),
            // The core group is nobody else's.
            extension: extension.filter(|e| !e.group.is_empty()).map(Arc::new),
        }
    }
}

/// Every APIService, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Services {
    entries: HashMap<Arc<str>, (Revision, Arc<Entry>)>,
    extensions: Vec<Arc<Extension>>,
}

impl Services {
    /// Reads what is stored; what has not changed since `before` is taken over.
    pub(super) fn read(snapshot: &Snapshot, before: &Self, locals: &[Local]) -> Self {
        let read = |record: &Arc<Record>| {
            let known = before.entries.get(&record.key).filter(|(revision, _)| *revision == record.revision);
            let entry = known.map_or_else(|| Arc::new(Entry::read(record)), |(_, entry)| entry.clone());
            (record.key.clone(), (record.revision, entry))
        };
        let entries: HashMap<_, _> = snapshot.records.values().map(read).collect();
        let mut extensions: Vec<_> = entries.values().filter_map(|(_, e)| e.extension.clone()).collect();
        // Whoever has registered another server is asked instead.
        let ours = locals.iter().filter(|local| {
            let entry = entries.get(local.name().as_str());
            entry.is_some_and(|(_, entry): &(Revision, Arc<Entry>)| entry.extension.is_none())
        });
        extensions.extend(ours.map(|local| Arc::new(Extension::within(local))));
        extensions.sort_by(|a, b| a.name.cmp(&b.name));
        Self { entries, extensions }
    }

    /// Who serves a group and version, if not this server.
    pub(crate) fn extension(&self, group: &str, version: &str) -> Option<&Arc<Extension>> {
        self.extensions.iter().find(|e| *e.group == *group && *e.version == *version)
    }

    /// All that others serve, by name.
    pub(crate) fn extensions(&self) -> &[Arc<Extension>] {
        &self.extensions
    }

    /// How much a group and a version are to be preferred, if somebody says so.
    pub(crate) fn priority(&self, group: &str, version: &str) -> Option<(i64, i64)> {
        let (_, entry) = self.entries.get(format!("{version}.{group}").as_str())?;
        (*entry.group == *group && *entry.version == *version).then_some(entry.priority)
    }

    /// Those of what is served here that do not say yet that it is there.
    pub(super) fn unmarked(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.iter().filter(|(_, (_, entry))| !entry.is_marked).map(|(name, _)| name)
    }
}
