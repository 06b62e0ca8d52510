//! A report as JUnit XML, which CI systems show: one suite per product, one test per case, and one for the verdict.

use std::fmt::Write as _;

use coffer_rim::foreign::foreign_lines;

use super::{Report, Verdict};

impl Report {
    /// The whole document.
    pub fn junit(&self) -> String {
        let mut suites = String::new();
        let (mut all, mut all_failed) = (0, 0);
        for product in self.products() {
            let product_name = product.name();
            let outcomes: Vec<_> = self.outcomes.iter().filter(|outcome| outcome.case.product == product).collect();
            let mut cases = String::new();
            let (mut failed, mut seconds) = (0, 0.0);
            for outcome in &outcomes {
                let (case, asked) = (outcome.case, &outcome.asked);
                let took = asked.took.as_secs_f64();
                seconds += took;
                let head = format!(
                    "    <testcase classname=\"{}\" name=\"{}\" time=\"{took:.3}\"",
                    xml(&format!("{product_name}.{}", case.group())),
                    xml(case.name())
                );
                if self.is_right(outcome) {
                    let _ = writeln!(cases, "{head}/>");
                    continue;
                }
                failed += 1;
                let (expected, answer) = (case.expected(), asked.answer.clause());
                let message = format!("{}: must be answered {expected}, {answer}", case.what());
                let body = format!("{}\nagain:\n{}", foreign_lines(&asked.output), outcome.again);
                let _ = writeln!(
                    cases,
                    "{head}>\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                    xml(&message),
                    xml(&body)
                );
            }
            // A verifier that refuses everything fails one case of sixty; this one says what that means.
            let head = format!("    <testcase classname=\"{product_name}\" name=\"verdict\"");
            if self.verdict_on(product) == Verdict::ProvesNothing {
                failed += 1;
                let message = "the verifier gives one answer to all, good and bad: this proves nothing";
                let _ = writeln!(cases, "{head}>\n      <failure message=\"{message}\"/>\n    </testcase>");
            } else {
                let _ = writeln!(cases, "{head}/>");
            }
            let tests = outcomes.len() + 1;
            (all, all_failed) = (all + tests, all_failed + failed);
            let _ = writeln!(
                suites,
                "  <testsuite name=\"coffer sim check: {product_name}\" tests=\"{tests}\" failures=\"{failed}\" \
                 time=\"{seconds:.3}\">\n{cases}  </testsuite>"
            );
        }
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{all}\" failures=\"{all_failed}\">\n\
             {suites}</testsuites>\n"
        )
    }
}

/// Text for an element or an attribute. What XML 1.0 cannot hold, and what acts on a terminal, is written as its number.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}
