package coffer.azure_cvm_test

import data.coffer.azure_cvm

good := {"result": {"claims": {
	"anchor": {"simulated": false},
	"report_data_binding": "attachment",
	"report": {
		"vmpl": 0,
		"policy": {"debug": false, "migrate_ma": false},
		"id_key_digest": "0356215882a825279a85b300b0b742931d113bf7e32dde2e50ffde7ec743ca491ecdd7f336dc28a6e0b2bb57af7a44a3",
	},
}}}

but(change) := object.union(good, {"result": {"claims": change}})

without(path) := json.remove(good, [concat("/", ["result/claims", path])])

test_admits_a_report_in_an_hcl_blob if {
	azure_cvm.allow with input as good
	count(azure_cvm.deny) == 0 with input as good
}

test_admits_a_report_made_for_the_verifier if azure_cvm.allow with input as but({"report_data_binding": "demanded"})

test_refuses_an_empty_input if not azure_cvm.allow with input as {}

test_refuses_simulated_roots if not azure_cvm.allow with input as but({"anchor": {"simulated": true}})

test_refuses_other_vmpl if not azure_cvm.allow with input as but({"report": {"vmpl": 1}})

test_refuses_debug if not azure_cvm.allow with input as but({"report": {"policy": {"debug": true}}})

test_refuses_a_migration_agent if not azure_cvm.allow with input as but({"report": {"policy": {"migrate_ma": true}}})

test_refuses_a_bare_report if {
	bad := but({"report_data_binding": "waived"})
	not azure_cvm.allow with input as bad
	some message in azure_cvm.deny with input as bad
	startswith(message, "report-data:")
}

test_refuses_another_id_key if not azure_cvm.allow with input as but({"report": {"id_key_digest": "00"}})

test_refuses_no_id_key if not azure_cvm.allow with input as but({"report": {"id_key_digest": null}})

test_refuses_what_is_absent if {
	every path in [
		"anchor/simulated",
		"report_data_binding",
		"report/vmpl",
		"report/policy/debug",
		"report/policy/migrate_ma",
		"report/id_key_digest",
	] {
		not azure_cvm.allow with input as without(path)
	}
}
