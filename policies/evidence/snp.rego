# Appraisal policy for evidence: is this SNP report one to rely on at all?
#
# Runs behind the verifier's typed floor, which no Rego can lower. Shipped default: it admits AMD's pinned roots only,
# VMPL 0, no debugging, no migration agent, and a report that carries a launch digest.
# Input: docs/policies.md, "The input"; the member `result`.
package coffer.evidence

default allow := false

allow if {
	input.result.claims.anchor.simulated == false
	input.result.claims.report.vmpl == 0
	input.result.claims.report.policy.debug == false
	input.result.claims.report.policy.migrate_ma == false
	measured
	count(deny) == 0
}

# Said positively: `not` over an absent field would be true.
measured if regex.match("[1-9a-f]", input.result.claims.report.measurement)

deny contains "anchor: the evidence does not rest on one of AMD's pinned roots" if {
	not input.result.claims.anchor.simulated == false
}

deny contains "vmpl: the report was not asked for at VMPL 0" if not input.result.claims.report.vmpl == 0

deny contains "guest-policy: debugging is allowed" if not input.result.claims.report.policy.debug == false

deny contains "guest-policy: a migration agent is allowed" if not input.result.claims.report.policy.migrate_ma == false

deny contains "measurement: zero or absent" if not measured
