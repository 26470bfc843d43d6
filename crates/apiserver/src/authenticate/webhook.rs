use std::collections::BTreeMap;
use std::time::Duration;

use auth::User;
use serde_json::{Value, json};

use super::Identified;
use crate::cache::Answers;
use crate::outbound::{CallError, FIRST_WAIT, Remote};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody else who knows tokens (kubernetes/kubernetes, `apiserver/plugin/pkg/authenticator/token/webhook`).
pub struct TokenWebhook {
    /// Whom to ask.
    pub remote: Remote,
    /// How long an answer holds.
    pub hold: Duration,
    /// Whether the question is put in the older version, `v1beta1`.
    pub beta: bool,
    answers: Answers<Option<(User, Vec<String>)>>,
}

impl TokenWebhook {
    /// Over a server.
    pub fn new(remote: Remote, hold: Duration, beta: bool) -> Self {
        Self { remote, hold, beta, answers: Answers::default() }
    }

    pub(super) async fn user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identified>, CallError> {
        let question = format!("{}\n{token}", audiences.join("\n"));
        let known = match self.answers.get(&question) {
            Some(known) => known,
            None => {
                let version = if self.beta { "v1beta1" } else { "v1" };
                let version = format!("authentication.k8s.io/{version}");
                let review = json!({"kind": "TokenReview", "apiVersion": version,
                    "metadata": {}, "spec": {"token": token, "audiences": audiences}});
                let answer = self.remote.post(&review, PATIENCE, FIRST_WAIT).await?;
                let known = read(&answer["status"], audiences);
                self.answers.put(question, known.clone(), self.hold);
                known
            }
        };
        Ok(known.map(|(user, audiences)| Identified { user, audiences }))
    }
}

fn read(status: &Value, wanted: &[String]) -> Option<(User, Vec<String>)> {
    if status["authenticated"] != true {
        return None;
    }
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let said = texts(&status["audiences"]);
    // One that does not know of audiences speaks for the API's own.
    let common: Vec<String> = if said.is_empty() {
        wanted.to_vec()
    } else {
        said.into_iter().filter(|a| wanted.contains(a)).collect()
    };
    if common.is_empty() {
        return None;
    }
    let user = &status["user"];
    let text = |field: &str| user[field].as_str().unwrap_or_default().to_owned();
    let extra = user["extra"].as_object().into_iter().flatten();
    let extra: BTreeMap<_, _> = extra.map(|(k, v)| (k.clone(), texts(v))).collect();
    let mut groups = texts(&user["groups"]);
    groups.retain(|g| g != User::AUTHENTICATED);
    let user = User { uid: text("uid"), extra, ..User::authenticated(text("username"), groups) };
    Some((user, common))
}
