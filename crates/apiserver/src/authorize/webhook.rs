//! Somebody else who decides (kubernetes/kubernetes, `apiserver/plugin/pkg/authorizer/webhook`).

use std::fmt;
use std::time::Duration;

use auth::{Answer, Attributes, User};
use cel::{Activation, Budget, Decl, Env, MATCH_CONDITIONS_BUDGET, Program, Type};
use serde_json::{Value, json};
use types::Requirement;

use crate::cache::Answers;
use crate::outbound::{FIRST_WAIT, Remote};

/// How a webhook is asked.
#[derive(Clone, Debug)]
pub struct AuthorizationWebhookOptions {
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How long it holds that something is allowed; zero for not at all.
    pub allowed: Duration,
    /// How long it holds that something is not.
    pub denied: Duration,
    /// Whether a webhook that does not answer refuses, instead of having no opinion.
    pub fail_closed: bool,
    /// Whether the question is put in the older version, `v1beta1`.
    pub beta: bool,
}

impl Default for AuthorizationWebhookOptions {
    /// Upstream's (`pkg/kubeapiserver/options/authorization.go`), but for the version.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            allowed: Duration::from_secs(300),
            denied: Duration::from_secs(30),
            fail_closed: false,
            beta: false,
        }
    }
}

/// A webhook that is asked whether requests may go on.
pub struct AuthorizationWebhook {
    remote: Remote,
    options: AuthorizationWebhookOptions,
    conditions: Vec<Program>,
    answers: Answers<Answer>,
}

impl fmt::Debug for AuthorizationWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationWebhook").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// The variables of conditions (upstream: `apiserver/pkg/authorization/cel/compile.go`).
pub(super) fn conditions_env() -> Env {
    let text = |name: &str| (name.to_owned(), Decl::new(Type::String));
    let texts = || Decl::new(Type::list(Type::String));
    let requirement =
        |name: &str| Type::record(name, [text("key"), text("operator"), ("values".to_owned(), texts())]);
    let selector = |name: &str, requirement: Type| {
        let requirements = Decl::new(Type::list(requirement));
        Decl::new(Type::record(name, [text("rawSelector"), ("requirements".to_owned(), requirements)]))
    };
    let resource = Type::record(
        "kubernetes.ResourceAttributes",
        [
            text("namespace"),
            text("verb"),
            text("group"),
            text("version"),
            text("resource"),
            text("subresource"),
            text("name"),
            (
                "fieldSelector".to_owned(),
                selector(
                    "kubernetes.FieldSelectorAttributes",
                    requirement("kubernetes.FieldSelectorRequirement"),
                ),
            ),
            (
                "labelSelector".to_owned(),
                selector(
                    "kubernetes.LabelSelectorAttributes",
                    requirement("kubernetes.LabelSelectorRequirement"),
                ),
            ),
        ],
    );
    let path = Type::record("kubernetes.NonResourceAttributes", [text("path"), text("verb")]);
    let request = Type::record(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("resourceAttributes".to_owned(), Decl::new(resource)),
            ("nonResourceAttributes".to_owned(), Decl::new(path)),
            text("user"),
            ("groups".to_owned(), texts()),
            ("extra".to_owned(), Decl::new(Type::map(Type::String, Type::list(Type::String)))),
            text("uid"),
        ],
    );
    Env::builder().variable("request", request).build()
}

/// Readies one condition.
pub(super) fn condition(env: &Env, source: &str) -> Result<Program, String> {
    let program = env.compile(source).map_err(|e| format!("compilation failed: {e}"))?;
    if *program.result_type() != Type::Bool {
        return Err("must evaluate to bool".into());
    }
    Ok(program)
}

impl AuthorizationWebhook {
    /// Over a server.
    pub fn new(remote: Remote, options: AuthorizationWebhookOptions) -> Self {
        Self { remote, options, conditions: Vec::new(), answers: Answers::default() }
    }

    /// Asks only about requests for which these expressions hold.
    pub fn with_conditions(mut self, sources: &[String]) -> Result<Self, String> {
        let env = conditions_env();
        for source in sources {
            self.conditions.push(condition(&env, source)?);
        }
        Ok(self)
    }

    pub(super) fn with_programs(self, conditions: Vec<Program>) -> Self {
        Self { conditions, ..self }
    }

    fn failed(&self, why: String) -> Answer {
        let answer = if self.options.fail_closed { Answer::deny("") } else { Answer::no_opinion("") };
        Answer { error: Some(why), ..answer }
    }

    /// What the conditions alone say. One that does not hold decides, whatever fails beside it.
    fn skips(&self, user: &User, attributes: &Attributes<'_>) -> Option<Answer> {
        if self.conditions.is_empty() {
            return None;
        }
        let seen = seen(user, attributes);
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut faults = Vec::new();
        for condition in &self.conditions {
            let outcome = condition.evaluate(&Activation::new().json("request", &seen), &mut budget);
            match outcome.map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(_) => return Some(Answer::no_opinion("")),
                Err(error) => faults.push(error.to_string()),
            }
        }
        (!faults.is_empty()).then(|| self.failed(faults.join(", ")))
    }

    /// What is known without asking.
    pub(super) fn known(&self, user: &User, attributes: &Attributes<'_>) -> Option<Answer> {
        self.skips(user, attributes)
            .or_else(|| self.answers.get(&spec(user, attributes, self.options.beta).to_string()))
    }

    pub(super) async fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Answer {
        if let Some(answer) = self.skips(user, attributes) {
            return answer;
        }
        let spec = spec(user, attributes, self.options.beta);
        let question = spec.to_string();
        if let Some(answer) = self.answers.get(&question) {
            return answer;
        }
        let version =
            if self.options.beta { "authorization.k8s.io/v1beta1" } else { "authorization.k8s.io/v1" };
        let review =
            json!({"kind": "SubjectAccessReview", "apiVersion": version, "metadata": {}, "spec": spec});
        let status = match self.remote.post(&review, self.options.timeout, FIRST_WAIT).await {
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
        let hold = if answer.is_allowed() { self.options.allowed } else { self.options.denied };
        self.answers.put(question, answer.clone(), hold);
        answer
    }
}

/// A question as conditions see it: with every field of its own, even where it is empty.
fn seen(user: &User, a: &Attributes<'_>) -> Value {
    let mut spec = spec(user, a, false);
    types::set_default(&mut spec, "uid", "");
    types::set_default(&mut spec, "extra", json!({}));
    if a.is_resource() {
        for field in ["namespace", "verb", "group", "version", "resource", "subresource", "name"] {
            types::set_default(&mut spec["resourceAttributes"], field, "");
        }
    }
    spec
}

fn spec(user: &User, a: &Attributes<'_>, beta: bool) -> Value {
    let groups = if beta { "group" } else { "groups" };
    let mut spec = json!({"user": user.name, groups: user.groups});
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
