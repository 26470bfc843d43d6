use serde_json::Value;
use types::Path;

use super::INVALID;

/// What was found, and how much fitted on the way: of several alternatives the best one is reported.
#[derive(Default)]
pub(super) struct Found {
    pub(super) errors: Vec<(&'static str, String, String)>,
    pub(super) score: usize,
}

impl Found {
    pub(super) fn add(&mut self, reason: &'static str, path: Option<&Path<'_>>, message: String) {
        self.errors.push((reason, name(path), message));
    }

    pub(super) fn invalid(&mut self, path: Option<&Path<'_>>, value: &Value, why: &str) {
        self.add(INVALID, path, format!("Invalid value: {value}: {} in body {why}", name(path)));
    }

    /// The errors of the alternative that came nearest.
    pub(super) fn take_best(&mut self, outcomes: Vec<Found>) {
        let best =
            outcomes.into_iter().reduce(|best, next| if next.score > best.score { next } else { best });
        if let Some(mut best) = best {
            self.errors.append(&mut best.errors);
        }
    }
}

/// A path as messages show it.
pub(super) fn name(path: Option<&Path<'_>>) -> String {
    path.map(|path| path.to_string()).unwrap_or_default()
}
