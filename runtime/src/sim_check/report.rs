//! A report in words for people and in JSON for scripts.

use std::fmt::Write as _;

use coffer_rim::foreign::foreign_lines;
use coffer_verifier::abi::ProductLine;
use serde_json::{Value, json};

use super::{Answer, Outcome, Report, Verdict};

impl Report {
    /// Whether an outcome is right.
    pub fn is_right(&self, outcome: &Outcome) -> bool {
        outcome.case.is_right(outcome.asked.answer, self.strict)
    }

    /// Answers that are not right.
    pub fn wrong(&self) -> usize {
        self.outcomes.iter().filter(|outcome| !self.is_right(outcome)).count()
    }

    /// What the run shows: the worst of its products.
    pub fn verdict(&self) -> Verdict {
        let all: Vec<_> = self.products().into_iter().map(|product| self.verdict_on(product)).collect();
        let worst = [Verdict::ProvesNothing, Verdict::Wrong].into_iter().find(|verdict| all.contains(verdict));
        worst.unwrap_or(Verdict::Right)
    }

    /// What it shows about evidence of one product.
    pub fn verdict_on(&self, product: ProductLine) -> Verdict {
        let of_product = || self.outcomes.iter().filter(|outcome| outcome.case.product == product);
        let accepts = |outcome: &Outcome| outcome.asked.answer == Answer::Accepted;
        let (good, bad): (Vec<_>, Vec<_>) = of_product().partition(|outcome| outcome.case.attack.is_none());
        let distinguishes = good.iter().any(|good| bad.iter().any(|bad| accepts(good) != accepts(bad)));
        if !distinguishes {
            Verdict::ProvesNothing
        } else if of_product().all(|outcome| self.is_right(outcome)) {
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }

    /// Products in the order they were asked about.
    pub fn products(&self) -> Vec<ProductLine> {
        let mut all = Vec::new();
        for outcome in &self.outcomes {
            if !all.contains(&outcome.case.product) {
                all.push(outcome.case.product);
            }
        }
        all
    }

    /// One object. What the verifier printed stands there as it was, which JSON escapes.
    pub fn json(&self) -> Value {
        let results: Vec<_> = self.outcomes.iter().map(|outcome| self.result(outcome)).collect();
        let products: Vec<_> = self
            .products()
            .into_iter()
            .map(|product| json!({ "product": product, "verdict": self.verdict_on(product) }))
            .collect();
        json!({ "verdict": self.verdict(), "wrong": self.wrong(), "products": products, "results": results })
    }

    fn result(&self, outcome: &Outcome) -> Value {
        let (case, asked) = (outcome.case, &outcome.asked);
        let ok = self.is_right(outcome);
        let mut result = json!({
            "product": case.product,
            "attack": case.attack.map_or("(good evidence)", |attack| attack.name),
            "group": case.group(),
            "what": case.what(),
            "expected": case.expected(),
            "answer": asked.answer.word(),
            "ok": ok,
            "seconds": asked.took.as_secs_f64(),
        });
        if !ok {
            result["output"] = json!(asked.output);
            result["again"] = json!(outcome.again);
        }
        result
    }

    /// A table, then each case that failed, then the verdict.
    pub fn text(&self) -> String {
        let mut text =
            format!("{:<8} {:<26} {:<10} {:<32} {:<16}\n", "PRODUCT", "ATTACK", "GROUP", "MUST BE ANSWERED", "ANSWER");
        for outcome in &self.outcomes {
            let (case, answer) = (outcome.case, outcome.asked.answer.word());
            let name = case.attack.map_or("(good evidence)", |attack| attack.name);
            let word = if self.is_right(outcome) { "ok" } else { "WRONG" };
            let (product, group, expected) = (case.product.name(), case.group(), case.expected());
            let _ = writeln!(text, "{product:<8} {name:<26} {group:<10} {expected:<32} {answer:<16} {word}");
        }
        for outcome in self.outcomes.iter().filter(|outcome| !self.is_right(outcome)) {
            let (case, asked) = (outcome.case, &outcome.asked);
            let _ = writeln!(text, "\n{} {}: {}", case.product.name(), case.name(), case.what());
            let (expected, answer, took) = (case.expected(), asked.answer.clause(), asked.took.as_secs_f64());
            let _ = writeln!(text, "  must be answered {expected}, {answer} after {took:.2} s");
            if asked.output.trim().is_empty() {
                let _ = writeln!(text, "  it printed nothing");
            } else {
                let _ = writeln!(text, "  it printed:\n  {}", foreign_lines(&asked.output));
            }
            let _ = writeln!(text, "again:\n{}", outcome.again);
        }
        if self.wrong() > 0 {
            text.push('\n');
        }
        let (all, wrong) = (self.outcomes.len(), self.wrong());
        let _ = writeln!(text, "{} of {all} answers are right", all - wrong);
        for product in self.products() {
            if self.verdict_on(product) == Verdict::ProvesNothing {
                let name = product.name();
                let _ =
                    writeln!(text, "{name}: the verifier gives one answer to all, good and bad: this proves nothing");
            }
        }
        text
    }
}
