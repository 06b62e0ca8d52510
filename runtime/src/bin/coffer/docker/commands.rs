//! Docker's commands that are not Coffer's.

use super::row::{Row, but, no};

/// One row for each.
pub const COMMANDS: &[Row] = &[
    // Boxes.
    but(
        &["container"],
        "containers are boxes here, and their commands stand by themselves",
        "`coffer ps`, `coffer run`, `coffer rm`: the word without `container`",
    ),
    // Images.
    but(
        &["build", "builder", "buildx"],
        "Coffer builds no images yet",
        "build with docker or buildah, push to a registry, and `coffer pull` it from there",
    ),
    but(&["search"], "registries are not searched", "name the image in full: `coffer pull docker.io/library/busybox`"),
    but(
        &["scout", "sbom"],
        "contents of images are not listed",
        "what a guest runs is measured: `coffer measure IMAGE`",
    ),
    but(
        &["trust"],
        "signatures of images are not checked yet",
        "pull by digest (IMAGE@sha256:…); the root file system is measured, and `coffer attest` proves it",
    ),
    // Networks and more than one box.
    but(
        &["compose", "docker-compose"],
        "several boxes are not described in one file yet",
        "start them one by one with `coffer run -d --name NAME IMAGE`",
    ),
    no(&["swarm", "service", "stack", "node"], "Coffer runs boxes on this machine, and manages no cluster"),
    but(
        &["config"],
        "Coffer manages no cluster, and keeps no configuration objects",
        "files get in with `coffer run -v ./HOST:/PATH:ro IMAGE`, secrets with `coffer kbs secret put`",
    ),
    but(
        &["secret"],
        "secrets are kept by a key broker, and go to guests that prove what they are",
        "`coffer kbs secret put` stores one; `coffer inject-secret` writes one into a running guest",
    ),
    no(&["checkpoint"], "boxes are not saved and resumed yet"),
    no(&["pod", "kube", "play", "generate"], "pods are not there yet: each box is a machine of its own"),
    but(&["machine"], "every box is a machine of its own here", "`coffer run IMAGE` starts one"),
    // The program and its machine.
    but(
        &["info"],
        "there is no daemon to ask",
        "`coffer system info` counts what is here, and `coffer doctor` says what can run",
    ),
    but(
        &["context"],
        "there is no daemon to connect to",
        "`--home DIR` or COFFER_HOME chooses where boxes and images are kept",
    ),
    no(&["plugin", "init", "extension"], "Coffer has no plugins"),
    but(&["shell"], "a shell is a program like any other", "`coffer exec -it BOX sh`"),
];
