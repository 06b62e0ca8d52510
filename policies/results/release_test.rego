package coffer.results_test

import data.coffer.results

good := {
	"now_unix": 1000,
	"result": {
		"status": "affirming",
		"workload_digest": "w1",
		"claims": {
			"anchor": {"simulated": false, "spki_sha256": "aa"},
			"report": {"measurement": "m1"},
		},
	},
	"tenant": {"name": "acme", "simulated_anchors": ["55"]},
	"spec": {"secrets": ["kbs:///a/b/c"]},
	"secret": {"path": "kbs:///a/b/c", "allow_simulated": false},
	"references": [{"measurement": "m1", "workload_digest": "w1", "name": "r", "expires_unix": 0}],
}

simulated(fingerprint) := {"claims": {"anchor": {"simulated": true, "spki_sha256": fingerprint}}}

test_releases_to_an_admitted_guest if {
	results.allow with input as good
	count(results.deny) == 0 with input as good
}

test_refuses_an_empty_input if not results.allow with input as {}

test_refuses_an_input_without_status if {
	not results.allow with input as json.remove(good, ["result/status"])
}

test_refuses_a_result_that_is_not_affirming if {
	bad := object.union(good, {"result": {"status": "warning"}})
	not results.allow with input as bad
	"status: the attestation result is not affirming" in results.deny with input as bad
}

test_refuses_a_result_without_a_root if {
	bad := object.union(good, {"result": {"claims": {"anchor": {"simulated": "no"}}}})
	not results.allow with input as bad
	some message in results.deny with input as bad
	startswith(message, "anchor:")
}

test_releases_simulated_only_with_both_permissions if {
	both := object.union(good, {"result": simulated("55"), "secret": {"allow_simulated": true}})
	results.allow with input as both
}

test_refuses_simulated_without_the_secrets_permission if {
	bad := object.union(good, {"result": simulated("55")})
	not results.allow with input as bad
	"anchor: evidence is simulated and this secret does not carry allow_simulated" in results.deny with input as bad
}

test_refuses_simulated_without_the_tenants_listing if {
	bad := object.union(good, {"result": simulated("66"), "secret": {"allow_simulated": true}})
	not results.allow with input as bad
}

test_refuses_truthy_words_for_allow_simulated if {
	bad := object.union(good, {"result": simulated("55"), "secret": {"allow_simulated": "yes"}})
	not results.allow with input as bad
}

test_refuses_another_measurement if {
	bad := object.union(good, {"result": {"claims": {"report": {"measurement": "m2"}}}})
	not results.allow with input as bad
	"reference: workload w1 is listed for measurement m1, found measurement m2" in results.deny with input as bad
}

test_refuses_another_workload if {
	bad := object.union(good, {"result": {"workload_digest": "w2"}})
	not results.allow with input as bad
	"reference: measurement m1 is listed for workload w1, found workload w2" in results.deny with input as bad
}

test_refuses_halves_of_two_pairs if {
	bad := object.union(good, {"references": [
		{"measurement": "m1", "workload_digest": "w2", "name": "r", "expires_unix": 0},
		{"measurement": "m2", "workload_digest": "w1", "name": "r", "expires_unix": 0},
	]})
	not results.allow with input as bad
}

test_refuses_without_references if {
	bad := object.union(good, {"references": []})
	not results.allow with input as bad
	count(results.deny) == 1 with input as bad
}

test_refuses_an_expired_reference if {
	bad := object.union(good, {"references": [
		{"measurement": "m1", "workload_digest": "w1", "name": "r", "expires_unix": 1000},
	]})
	not results.allow with input as bad
	some message in results.deny with input as bad
	contains(message, "expired")
}

test_admits_a_reference_before_its_expiry if {
	results.allow with input as object.union(good, {"references": [
		{"measurement": "m1", "workload_digest": "w1", "name": "r", "expires_unix": 1001},
	]})
}

test_refuses_a_path_the_spec_does_not_name if {
	bad := object.union(good, {"secret": {"path": "kbs:///a/b/d"}})
	not results.allow with input as bad
	"spec: the guest's workload spec does not ask for this path" in results.deny with input as bad
}

# --- authors

author := "6666"

signed := object.union(good, {
	"result": {"claims": {"report": {
		"measurement": "m2", "author_key_digest": author, "family_id": "f1", "image_id": "i1", "guest_svn": 5,
	}}},
	"references": [],
	"signers": [{
		"name": "s", "author_key_digest": author, "family_id": "f1", "image_id": "i1",
		"minimum_guest_svn": 5, "expires_unix": 0,
	}],
})

report(change) := object.union(signed, {"result": {"claims": {"report": change}}})

test_releases_what_a_listed_author_signed if {
	results.allow with input as signed
	count(results.deny) == 0 with input as signed
}

test_releases_a_later_version_of_a_listed_author if results.allow with input as report({"guest_svn": 6})

test_refuses_a_lower_version if not results.allow with input as report({"guest_svn": 4})

test_refuses_another_author if not results.allow with input as report({"author_key_digest": "6667"})

test_refuses_no_author if not results.allow with input as report({"author_key_digest": null})

test_refuses_another_family if not results.allow with input as report({"family_id": "f2"})

test_refuses_another_image if not results.allow with input as report({"image_id": "i2"})

test_refuses_a_zero_digest_on_both_sides if {
	zeros := object.union(report({"author_key_digest": "0000"}), {"signers": [object.union(
		signed.signers[0],
		{"author_key_digest": "0000"},
	)]})
	not results.allow with input as zeros
}

test_refuses_an_author_whose_rule_expired if {
	late := object.union(signed, {"signers": [object.union(signed.signers[0], {"expires_unix": 1000})]})
	not results.allow with input as late
	some message in results.deny with input as late
	startswith(message, "reference:")
}

# Sealing keys, generations and certificates have terms at the broker, and no path in the spec.

asked(kind, allow_simulated) := object.union(
	object.remove(good, {"secret"}),
	{"asked": {"kind": kind, "name": "n", "allow_simulated": allow_simulated}},
)

test_admits_what_is_asked_for_by_name if {
	every kind in {"sealing-key", "generation", "certificate", "token"} {
		results.allow with input as asked(kind, false)
	}
}

test_refuses_what_it_does_not_know_and_a_secret_without_a_path if {
	not results.allow with input as asked("secret", true)
	not results.allow with input as asked("other", true)
	not results.allow with input as object.remove(good, {"secret"})
}

test_simulated_evidence_needs_the_terms_to_say_so if {
	results.allow with input as object.union(asked("sealing-key", true), {"result": simulated("55")})
	not results.allow with input as object.union(asked("sealing-key", false), {"result": simulated("55")})
	not results.allow with input as object.union(
		object.union(asked("sealing-key", true), {"result": simulated("55")}),
		{"secret": {"path": "kbs:///a/b/c", "allow_simulated": false}},
	)
}
