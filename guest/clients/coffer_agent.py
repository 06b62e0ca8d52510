"""Client of a Coffer guest's agent, for programs inside the guest. One file, standard library alone.

    import coffer_agent
    agent = coffer_agent.Agent()
    password, version = agent.secret("app/db/password")
    sealed = agent.seal(b"state", context="db")
"""

import base64
import http.client
import json
import socket
import urllib.parse

SOCKET = "/run/coffer/agent.sock"
# What of a sealed file says which it is: its header and first chunk.
HEAD = 65668


class Refused(Exception):
    """The agent, or the key broker behind it, said no. `id` joins a refusal of the broker with its audit trail."""

    def __init__(self, status, word, message, id=None):
        super().__init__(f"{word}: {message}")
        self.status, self.word, self.message, self.id = status, word, message, id


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("coffer", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Agent:
    """The agent of this guest."""

    def __init__(self, path=SOCKET, timeout=60):
        self._path, self._timeout = path, timeout

    def secret(self, path, version=None):
        """Value and version of a secret of the key broker: `repository/type/tag`."""
        query = {} if version is None else {"version": version}
        headers, body = self._ask("GET", "/v1/secrets/" + urllib.parse.quote(path), query)
        return body, int(headers["coffer-secret-version"])

    def seal(self, data, context, policy=None, counted=False, replaces=None):
        """Seals bytes so that they open where the policy says: measurement-and-chip, chip, measurement, workload or signer.

        `counted`: an older file in this one's place is refused from now on; the key broker keeps the counter. `replaces`: the sealed
        file, begun so, whose place this one takes. It opens no more then."""
        query = _given(context=context, policy=policy, counted="true" if counted else None)
        if replaces is not None:
            head = replaces[:HEAD]
            query["replaces"], data = len(head), head + data
        return self._ask("POST", "/v1/seal", query, data)[1]

    def unseal(self, sealed, context):
        """Opens what was sealed under the same context."""
        return self._ask("POST", "/v1/unseal", _given(context=context), sealed)[1]

    def reseal(self, sealed, context, policy=None):
        """Opens a file and seals it anew, under another policy or at the TCB of today."""
        return self._ask("POST", "/v1/reseal", _given(context=context, policy=policy), sealed)[1]

    def evidence(self, data):
        """Evidence of this guest over data of the caller's, as a CMW record."""
        return self._ask("POST", "/v1/evidence", {}, data)[1]

    def certificate(self, csr, profile):
        """A certificate chain in PEM for the key of a signing request (PKCS #10, DER)."""
        return self._ask("POST", "/v1/certificate", _given(profile=profile), csr)[1]

    def token(self, csr, audience, nonce=None):
        """A token for an audience of the workload spec: what this guest is, for whoever holds the P-384 key of a signing request.

        `csr`: PKCS #10, DER. `nonce`: 8 to 64 bytes of the relying party's, which stand in the token."""
        text = None if nonce is None else base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()
        return self._ask("POST", "/v1/token", _given(audience=audience, nonce=text), csr)[1].decode()

    def _ask(self, method, path, query, body=b""):
        connection = _Connection(self._path, self._timeout)
        try:
            target = path + ("?" + urllib.parse.urlencode(query) if query else "")
            try:
                connection.request(method, target, body=body if method == "POST" else None)
            except (BrokenPipeError, ConnectionResetError):
                # A body that is too long is refused before all of it was sent; if there is no answer, reading says so.
                pass
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            said = json.loads(answer)
            raise Refused(response.status, said["error"], said["message"], said.get("id"))
        return response.headers, answer


def _given(**parameters):
    return {name: value for name, value in parameters.items() if value is not None}
