# Appraisal policy for attestation results: may this guest have this secret?
#
# The shipped default ("default"). It says yes only to what it can name: an affirming result, that rests on AMD's own
# root or on a simulated root which the tenant AND the secret list, for a (measurement, workload) pair on the tenant's list
# (signed manifests stand on it too), or for a launch that a listed author signed.
# Input: documented in docs/kbs.md, "Policy input".
# `allow` must be the boolean true and `deny` empty. Anything undefined is a refusal.
package coffer.results

default allow := false

allow if {
	affirming
	anchored
	admitted
	wanted
	count(deny) == 0
}

# --- what must hold

affirming if input.result.status == "affirming"

anchored if input.result.claims.anchor.simulated == false

anchored if {
	simulated
	listed_anchor
	permitted_simulated
}

permitted_simulated if input.secret.allow_simulated == true

permitted_simulated if {
	needs_no_path
	input.asked.allow_simulated == true
}

# Sealing keys, generations, certificates and tokens are asked for by names that have terms at the broker.
needs_no_path if {
	not input.secret
	input.asked.kind in {"sealing-key", "generation", "certificate", "token"}
}

admitted if {
	some reference in input.references
	reference.measurement == input.result.claims.report.measurement
	reference.workload_digest == input.result.workload_digest
	current(reference)
}

# The claim is null unless AUTHOR_KEY_EN is set and the digest is not zero, and null equals no digest.
admitted if {
	some signer in input.signers
	signer.author_key_digest == input.result.claims.report.author_key_digest
	regex.match("[1-9a-f]", signer.author_key_digest)
	signer.family_id == input.result.claims.report.family_id
	signer.image_id == input.result.claims.report.image_id
	input.result.claims.report.guest_svn >= signer.minimum_guest_svn
	current(signer)
}

current(reference) if reference.expires_unix == 0

current(reference) if reference.expires_unix > input.now_unix

wanted if input.secret.path in input.spec.secrets

wanted if needs_no_path

# --- what to say when it does not

deny contains "status: the attestation result is not affirming" if not affirming

deny contains "anchor: the result does not say which root it rests on" if {
	not input.result.claims.anchor.simulated in {true, false}
}

deny contains message if {
	simulated
	not listed_anchor
	message := sprintf("anchor: evidence rests on simulated root %v, which tenant %v does not list", [
		input.result.claims.anchor.spki_sha256,
		input.tenant.name,
	])
}

deny contains "anchor: evidence is simulated and this secret does not carry allow_simulated" if {
	simulated
	not permitted_simulated
}

simulated if input.result.claims.anchor.simulated == true

listed_anchor if input.result.claims.anchor.spki_sha256 in input.tenant.simulated_anchors

deny contains message if {
	not admitted
	not any_reference
	message := sprintf("reference: neither measurement %v nor workload %v is listed for tenant %v", [
		input.result.claims.report.measurement,
		input.result.workload_digest,
		input.tenant.name,
	])
}

deny contains message if {
	not admitted
	some reference in input.references
	reference.measurement == input.result.claims.report.measurement
	reference.workload_digest != input.result.workload_digest
	message := sprintf("reference: measurement %v is listed for workload %v, found workload %v", [
		reference.measurement,
		reference.workload_digest,
		input.result.workload_digest,
	])
}

deny contains message if {
	not admitted
	some reference in input.references
	reference.workload_digest == input.result.workload_digest
	reference.measurement != input.result.claims.report.measurement
	message := sprintf("reference: workload %v is listed for measurement %v, found measurement %v", [
		reference.workload_digest,
		reference.measurement,
		input.result.claims.report.measurement,
	])
}

deny contains message if {
	some reference in input.references
	not admitted
	reference.measurement == input.result.claims.report.measurement
	reference.workload_digest == input.result.workload_digest
	not current(reference)
	message := sprintf("reference: the entry for measurement %v and workload %v expired at unix time %v", [
		reference.measurement,
		reference.workload_digest,
		reference.expires_unix,
	])
}

any_reference if count(input.references) > 0

deny contains "spec: the guest's workload spec does not ask for this path" if not wanted
