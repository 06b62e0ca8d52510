package coffer.evidence_test

import data.coffer.evidence

good := {"result": {"claims": {
	"anchor": {"simulated": false, "spki_sha256": "aa"},
	"report": {
		"vmpl": 0,
		"policy": {"debug": false, "migrate_ma": false},
		"measurement": "00a0",
	},
}}}

but(change) := object.union(good, {"result": {"claims": change}})

test_admits_a_production_guest if {
	evidence.allow with input as good
	count(evidence.deny) == 0 with input as good
}

test_refuses_an_empty_input if not evidence.allow with input as {}

test_refuses_simulated_roots if {
	not evidence.allow with input as but({"anchor": {"simulated": true}})
}

test_refuses_other_vmpl if not evidence.allow with input as but({"report": {"vmpl": 1}})

test_refuses_debug if {
	not evidence.allow with input as but({"report": {"policy": {"debug": true}}})
}

test_refuses_absent_debug if {
	not evidence.allow with input as json.remove(good, ["result/claims/report/policy/debug"])
}

test_refuses_a_migration_agent if {
	not evidence.allow with input as but({"report": {"policy": {"migrate_ma": true}}})
}

test_refuses_a_zero_measurement if {
	not evidence.allow with input as but({"report": {"measurement": "0000"}})
}

test_refuses_an_absent_measurement if {
	not evidence.allow with input as json.remove(good, ["result/claims/report/measurement"])
}
