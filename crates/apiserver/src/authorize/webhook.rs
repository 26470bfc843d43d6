//! Somebody else who decides (kubernetes/kubernetes, `apiserver/plugin/pkg/authorizer/webhook`).

use std::fmt;
use std::time::Duration;

use auth::{Answer, Attributes, User};
use cel::{Activation, Budget, Env, MATCH_CONDITIONS_BUDGET, Program, Type};
use serde_json::{Value, json};
use types::Requirement;

use crate::cache::Answers;
use crate::outbound::Remote;

/// A webhook that is asked whether requests may go on.
pub struct AuthorizationWebhook {
    remote: Remote,
    allowed: Duration,
    denied: Duration,
    /// Whether a webhook that does not answer refuses, instead of having no opinion.
    fail_closed: bool,
    conditions: Vec<Program>,
    answers: Answers<Answer>,
}

impl fmt::Debug for AuthorizationWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationWebhook").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl AuthorizationWebhook {
    /// Over a server; answers hold so long.
    pub fn new(remote: Remote, allowed: Duration, denied: Duration) -> Self {
        let (conditions, answers) = (Vec::new(), Answers::default());
        Self { remote, allowed, denied, fail_closed: false, conditions, answers }
    }

    /// Refuses what the webhook cannot be asked.
    #[must_use]
    pub fn failing_closed(self) -> Self {
        Self { fail_closed: true, ..self }
    }

    /// Asks only about requests for which these expressions hold.
    pub fn with_conditions(mut self, sources: &[String]) -> Result<Self, cel::CompileErrors> {
        let env = Env::builder().variable("request", Type::Dyn).build();
        for source in sources {
            self.conditions.push(env.compile(source)?);
        }
        Ok(self)
    }

    fn failed(&self, why: String) -> Answer {
        let answer = if self.fail_closed { Answer::deny("") } else { Answer::no_opinion("") };
        Answer { error: Some(why), ..answer }
    }

    pub(super) async fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Answer {
        let spec = spec(user, attributes);
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        for condition in &self.conditions {
            let outcome = condition.evaluate(&Activation::new().json("request", &spec), &mut budget);
            match outcome.map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(_) => return Answer::no_opinion(""),
                Err(error) => return self.failed(error.to_string()),
            }
        }
        let question = spec.to_string();
        if let Some(answer) = self.answers.get(&question) {
            return answer;
        }
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "metadata": {}, "spec": spec});
        let status = match self.remote.post(&review).await {
            Ok(answer) => answer["status"].clone(),
            Err(error) => return self.failed(error.to_string()),
        };
        let reason = status["reason"].as_str().unwrap_or_default();
        let answer = match (status["allowed"] == true, status["denied"] == true) {
            (true, true) => {
                return self
                    .failed("webhook subject access review returned both allow and deny response".into());
            }
            (true, false) => Answer::allow(reason),
            (false, true) => Answer::deny(reason),
            (false, false) => Answer::no_opinion(reason),
        };
        let hold = if answer.is_allowed() { self.allowed } else { self.denied };
        self.answers.put(question, answer.clone(), hold);
        answer
    }
}

fn spec(user: &User, a: &Attributes<'_>) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if !a.is_resource() {
        spec["nonResourceAttributes"] = json!({"path": a.path, "verb": a.verb});
        return spec;
    }
    let mut resource = json!({});
    for (field, value) in [
        ("namespace", a.namespace),
        ("verb", a.verb),
        ("group", a.group),
        ("version", a.version),
        ("resource", a.resource),
        ("subresource", a.subresource),
        ("name", a.name),
    ] {
        if !value.is_empty() {
            resource[field] = value.into();
        }
    }
    if let Some(selectors) = a.selectors {
        if !selectors.fields.is_empty() {
            let fields = selectors.fields.iter().map(|f| {
                json!({"key": f.field, "operator": if f.equals { "In" } else { "NotIn" }, "values": [f.value]})
            });
            resource["fieldSelector"] = json!({"requirements": fields.collect::<Vec<_>>()});
        }
        let labels: Vec<Value> = selectors.labels.iter().filter_map(label).collect();
        if !labels.is_empty() {
            resource["labelSelector"] = json!({"requirements": labels});
        }
    }
    spec["resourceAttributes"] = resource;
    spec
}

fn label(requirement: &Requirement) -> Option<Value> {
    Some(match requirement {
        Requirement::Exists(key) => json!({"key": key, "operator": "Exists"}),
        Requirement::NotExists(key) => json!({"key": key, "operator": "DoesNotExist"}),
        Requirement::In(key, values) => json!({"key": key, "operator": "In", "values": values}),
        Requirement::NotIn(key, values) => json!({"key": key, "operator": "NotIn", "values": values}),
        // There is no way to say these; without them the question is a wider one.
        Requirement::Gt(..) | Requirement::Lt(..) => return None,
    })
}
