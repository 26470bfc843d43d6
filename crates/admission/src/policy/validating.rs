use cel::{Budget, RUNTIME_COST_BUDGET, Value as CelValue};
use serde_json::{Value, json};
use types::{Cause, Reason, Status};

use super::namespace_of;
use super::params::{Fault, Invocation, invocations};
use super::read::{Policy, Validation};
use crate::cluster::settled;
use crate::evaluate::{Asking, Input, request_json, request_resource};
use crate::matching::World;
use crate::request::{Notes, Request};
use crate::webhook::{Shown, converted};

/// The longest message that an expression may make (`apis/cel/config.go`, `MaxEvaluatedMessageExpressionSizeBytes`).
const MOST_MESSAGE_BYTES: usize = 5 * 1024;

/// What a policy has against a request.
struct Objection {
    /// Which validation; nothing where the policy as a whole failed.
    index: usize,
    message: String,
    reason: Option<Reason>,
}

/// Holds a request against the policies (upstream: `plugin/policy/validating/{dispatcher,validator}.go`).
pub(crate) async fn validate(
    policies: &[Policy],
    request: &Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
    world: &World<'_>,
    notes: &mut Notes,
) -> Result<(), Status> {
    let (found, faults) = invocations(policies, request, object, old, world).await;
    let mut denied: Option<(String, Reason)> = None;
    for Fault { policy, binding, message } in faults {
        if !policy.ignore && denied.is_none() {
            denied = Some((text(policy, binding.map(|b| b.name.as_str()), &message), Reason::Invalid));
        }
    }
    if !found.is_empty() {
        let namespace = namespace_of(request, world);
        for invocation in &found {
            let shown = converted(request, &invocation.hit, object, world).await?;
            let before = converted(request, &invocation.hit, old, world).await?;
            let review = Value::Object(request_json(request, invocation.hit.def(request)));
            let asking = Asking { cluster: world.cluster, user: request.user };
            let input = Input {
                object: shown.as_ref().map_or(&Value::Null, Shown::get),
                old: before.as_ref().map_or(&Value::Null, Shown::get),
                request: &review,
                namespace: &namespace,
                params: invocation.params.as_ref(),
                asking: &asking,
                resource: &request_resource(request),
            };
            let (objections, said) = settled(world.cluster, || {
                let mut said = Notes::default();
                (evaluate(invocation, &input, &mut said), said)
            })
            .await;
            notes.extend(said);
            let binding = invocation.binding;
            for objection in objections {
                let policy = invocation.policy;
                if binding.warn {
                    notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, objection.message
                    ));
                }
                if binding.audit {
                    let failure = json!([{"message": objection.message, "policy": policy.name,
                        "binding": binding.name, "expressionIndex": objection.index,
                        "validationActions": binding.actions}]);
                    notes.annotate(
                        "validation.policy.admission.k8s.io/validation_failure",
                        failure.to_string(),
                    );
                }
                if binding.deny && denied.is_none() {
                    let reason = objection.reason.unwrap_or(Reason::Invalid);
                    denied = Some((text(policy, Some(&binding.name), &objection.message), reason));
                }
            }
        }
    }
    let Some((message, reason)) = denied else { return Ok(()) };
    let mut status = request.forbidden_of(object, &message);
    (status.reason, status.code) = (Some(reason), reason.code());
    status.details.get_or_insert_default().causes.push(Cause { message, ..Cause::default() });
    Err(status)
}

fn text(policy: &Policy, binding: Option<&str>, message: &str) -> String {
    match binding {
        Some(binding) => format!(
            "ValidatingAdmissionPolicy '{}' with binding '{binding}' denied request: {message}",
            policy.name
        ),
        None => format!("ValidatingAdmissionPolicy '{}' denied request: {message}", policy.name),
    }
}

/// What one policy, bound and with one parameter, has against a request.
fn evaluate(invocation: &Invocation<'_>, input: &Input<'_>, notes: &mut Notes) -> Vec<Objection> {
    let policy = invocation.policy;
    let failed = |index, message| {
        (!policy.ignore).then_some(Objection { index, message, reason: None }).into_iter().collect()
    };
    match policy.conditions.hold(input) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return failed(0, why),
    }
    let mut budget = Budget::new(RUNTIME_COST_BUDGET);
    // Shared by all validations, so that a variable is worked out once.
    let activation = input.activation().compose("variables", &policy.variables);
    let mut objections = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
        let value = match &validation.program {
            Err(why) => Err(why.clone()),
            Ok(program) => program
                .evaluate(&activation, &mut budget)
                .map_err(|e| format!("expression '{}' resulted in error: {e}", validation.source)),
        };
        if budget.left().is_none() {
            return failed(0, cel::EvalError::Budget.to_string());
        }
        match value {
            Ok(CelValue::Bool(true)) => {}
            Ok(_) => {
                let message = message(validation, &activation, &mut budget);
                if budget.left().is_none() {
                    objections.extend::<Vec<_>>(failed(
                        index,
                        format!("failed messageExpression: {}", cel::EvalError::Budget),
                    ));
                    return objections;
                }
                objections.push(Objection { index, message, reason: validation.reason });
            }
            Err(why) => objections.extend::<Vec<_>>(failed(index, why)),
        }
    }
    let mut budget = Budget::new(RUNTIME_COST_BUDGET);
    for (index, annotation) in policy.annotations.iter().enumerate() {
        let value = match &annotation.program {
            Err(why) => Err(why.clone()),
            Ok(program) => program
                .evaluate(&activation, &mut budget)
                .map_err(|e| format!("expression '{}' resulted in error: {e}", annotation.source)),
        };
        match value {
            Ok(CelValue::String(value)) if !value.trim().is_empty() => {
                notes.annotate(format!("{}/{}", policy.name, annotation.key), value.trim());
            }
            Ok(CelValue::String(_) | CelValue::Null) => {}
            Ok(_) => objections.extend::<Vec<_>>(failed(
                index,
                format!(
                    "valueExpression '{}' resulted in unsupported return type. Return type must be either string or null.",
                    annotation.source
                ),
            )),
            Err(why) => objections.extend::<Vec<_>>(failed(index, why)),
        }
    }
    objections
}

/// What to say of a validation that does not hold: what its expression makes, or its text, or else itself.
fn message<'a>(validation: &'a Validation, activation: &cel::Activation<'a>, budget: &mut Budget) -> String {
    if let Some(program) = &validation.message_program
        && let Ok(CelValue::String(text)) = program.evaluate(activation, budget)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MOST_MESSAGE_BYTES && !text.contains('\n') {
            return text.to_owned();
        }
    }
    if validation.message.is_empty() {
        format!("failed expression: {}", validation.source.trim())
    } else {
        validation.message.clone()
    }
}
