//! What a policy would say of decisions that were recorded: who would be refused, and who not any more.
//!
//! What the typed stages refused stays refused: no policy admits it. Never: decides, or changes a record.

use serde::Serialize;

use crate::{Policy, decision_log::Recorded};

/// One recorded decision, asked about again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The decision's name, or where it was recorded.
    pub id: String,
    /// What was said then, or by the policy that is compared with; null where neither is known.
    pub before: Option<bool>,
    /// What would be said.
    pub after: bool,
    /// The reasons against, as they would be.
    pub reasons: Vec<String>,
    /// Parts of the record are masked: what is asked of them is absent.
    pub masked: bool,
}

/// Asks a policy about one record; `against` in place of what was said then. None where it has no input to ask about.
pub fn again(policy: &Policy, against: Option<&Policy>, at: &str, record: &Recorded) -> Option<Tried> {
    let input = record.input.as_ref()?;
    let ask = |policy: &Policy| policy.decide(input).behind_what_was_said(input);
    let decision = ask(policy);
    let (after, reasons) = (decision.allows(), decision.reasons().to_vec());
    let before = against.map(|against| ask(against).allows()).or(record.allow);
    let id = record.id.clone().unwrap_or_else(|| at.to_owned());
    Some(Tried { id, before, after, reasons, masked: record.is_masked })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn says_who_would_be_refused_and_never_admits_what_the_floor_refused() {
        let policy = |body: &str| Policy::parse("t.rego", &format!("package t\n{body}")).unwrap();
        let yes = policy("allow := true");
        let strict =
            policy("allow if input.result.claims.vmpl == 0\ndeny contains \"vmpl\" if input.result.claims.vmpl > 0");
        let record =
            |allow: Option<bool>, input: Value| Recorded { id: None, allow, input: Some(input), is_masked: false };
        let ours = record(Some(true), json!({"result": {"status": "affirming", "claims": {"vmpl": 1}}}));
        let tried = again(&strict, None, "log:1", &ours).unwrap();
        assert_eq!((tried.before, tried.after, tried.id.as_str()), (Some(true), false, "log:1"));
        assert_eq!(tried.reasons[0], "vmpl");
        assert_eq!(again(&yes, Some(&strict), "log:1", &ours).unwrap().before, Some(false));
        let floor = record(None, json!({"result": {"status": "contraindicated"}}));
        let tried = again(&yes, None, "log:2", &floor).unwrap();
        assert!(!tried.after && tried.before.is_none() && tried.reasons[0].starts_with("status:"), "{tried:?}");
        assert_eq!(again(&yes, None, "log:3", &Recorded { input: None, ..floor }), None);
        // Masked, left out, or a word that there is not.
        for result in [json!({"claims": {"vmpl": 0}}), json!({"status": null}), json!({"status": "fine"})] {
            let tried = again(&yes, None, "log:4", &record(Some(true), json!({"result": result}))).unwrap();
            assert!(!tried.after && tried.reasons[0].starts_with("status: input.result.status"), "{tried:?}");
        }
    }
}
