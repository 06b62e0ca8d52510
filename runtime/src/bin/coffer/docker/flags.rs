//! Docker's flags that are not Coffer's, by the commands that have them.

use super::row::{Row, but, no};

/// Commands, and the rows for each of them; the command without a name is `coffer` itself.
pub const FLAGS: &[(&[&str], &[Row])] = &[
    (&["run", "create"], BOXES),
    (&["exec"], EXEC),
    (&["commit"], COMMIT),
    (&["start"], START),
    (&["update"], UPDATE),
    (&["rm"], RM),
    (&["logs"], LOGS),
    (&["inspect"], INSPECT),
    (&["images"], IMAGES),
    (&["pull"], PULL),
    (&["push"], PUSH),
    (&["login"], LOGIN),
    (&["rmi"], RMI),
    (&["network"], NETWORK),
    (&[""], PROGRAM),
];

const BOXES: &[Row] = &[
    // Terminals.
    no(&["-a", "--attach"], "standard output and error are always shown together, each to its own stream"),
    // Network.
    but(
        &["--link"],
        "boxes of one network know each other by name",
        "make both with `coffer run --network NAME IMAGE`",
    ),
    no(&["--ip6", "--link-local-ip"], "boxes have IPv4 alone yet"),
    no(&["--mac-address"], "a box's hardware address follows from its address: --ip ADDRESS"),
    // Privileges: the guest has a kernel of its own.
    but(
        &["--privileged"],
        "a box's program is root in it by default, and there is no more to have of a box",
        "leave it out",
    ),
    no(&["--device", "--device-cgroup-rule", "--gpus"], "devices of the host do not get into boxes"),
    no(
        &["--ipc", "--pid", "--uts", "--userns", "--cgroupns", "--cgroup-parent"],
        "a box shares no namespace with the host or with another box",
    ),
    no(&["--runtime"], "there is one runtime; --isolation says what isolates the box"),
    // Resources.
    but(
        &[
            "-c",
            "--cpu-shares",
            "--cpu-period",
            "--cpu-quota",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
            "--cpuset-cpus",
            "--cpuset-mems",
        ],
        "a box has whole virtual processors",
        "`--cpus N` gives it N",
    ),
    but(
        &[
            "--memory-swap",
            "--memory-reservation",
            "--memory-swappiness",
            "--kernel-memory",
            "--oom-kill-disable",
            "--oom-score-adj",
        ],
        "a box has its memory whole, and no swap",
        "`--memory SIZE` gives it",
    ),
    no(
        &[
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-read-iops",
            "--device-write-bps",
            "--device-write-iops",
        ],
        "disks of boxes have no limit on speed yet",
    ),
    but(
        &["--storage-opt"],
        "limits of the writable layer have flags of their own",
        "`--writable SIZE` in memory, `--scratch SIZE` on an encrypted disk",
    ),
    // Storage.
    but(&["--volumes-from"], "volumes are named one by one", "`-v NAME:PATH` for each"),
    but(&["--volume-driver"], "there is one driver of volumes, local", "leave it out"),
    // Names and files.
    but(
        &["--annotation"],
        "boxes have labels alone",
        "`--label KEY=VALUE` gives one, and `coffer ps -f label=KEY` finds it",
    ),
    but(&["--log-driver"], "output is kept with the box", "`coffer logs BOX` shows it, and --log-opt bounds it"),
    but(&["--disable-content-trust"], "signatures of images are not checked yet", "pull by digest: IMAGE@sha256:…"),
    no(&["--use-api-socket"], "there is no daemon, and no socket of one"),
];

const EXEC: &[Row] = &[but(
    &["--privileged"],
    "a box's program is root in it by default, and there is no more to have of a box",
    "leave it out",
)];

const COMMIT: &[Row] = &[but(
    &["-p", "--pause", "--no-pause"],
    "what reads a box's files runs inside it, so that it cannot stand still meanwhile",
    "leave it out, and stop what writes in the box first",
)];

const START: &[Row] = &[no(&["--checkpoint", "--checkpoint-dir"], "boxes are not saved and resumed yet")];

const UPDATE: &[Row] = &[but(
    &[
        "-m",
        "--memory",
        "-c",
        "--cpu-shares",
        "--cpus",
        "--cpu-period",
        "--cpu-quota",
        "--cpuset-cpus",
        "--memory-swap",
        "--memory-reservation",
        "--pids-limit",
    ],
    "memory and processors are fixed when a box is created",
    "create another box with --memory and --cpus",
)];

const NETWORK: &[Row] = &[
    no(&["--ipv6"], "boxes have IPv4 alone yet"),
    no(&["--gateway"], "the gateway of a network has its first address"),
    but(
        &["--ip-range", "--aux-address"],
        "every address of a network can be a box's",
        "`--ip ADDRESS` for a box names one",
    ),
    no(&["-o", "--opt", "--ipam-driver", "--ipam-opt"], "the one driver, bridge, has no options"),
    no(
        &["--attachable", "--ingress-network", "--scope", "--config-from", "--config-only"],
        "Coffer manages no cluster",
    ),
];

const RM: &[Row] = &[no(&["-l", "--link"], "boxes of one network know each other by name")];

const LOGS: &[Row] = &[but(&["--details"], "labels are not shown beside output", "`coffer inspect BOX` shows them")];

const INSPECT: &[Row] = &[but(&["--type"], "it is about boxes alone", "`coffer image inspect IMAGE` is about images")];

const IMAGES: &[Row] = &[but(
    &["--tree"],
    "an image here is of one platform, and has no tree",
    "`coffer image inspect IMAGE` shows all of one",
)];

const PULL: &[Row] = &[
    no(&["-a", "--all-tags"], "one tag is pulled at a time"),
    but(&["--disable-content-trust"], "signatures of images are not checked yet", "pull by digest: IMAGE@sha256:…"),
];

const PUSH: &[Row] = &[
    no(&["-a", "--all-tags"], "one tag is pushed at a time"),
    but(&["--disable-content-trust"], "images are not signed here", "leave it out"),
    but(&["--platform"], "of an image for several platforms one is here", "leave it out"),
];

const LOGIN: &[Row] =
    &[but(&["-p", "--password"], "a command line can be read by others while it runs", "`--password-stdin`")];

const RMI: &[Row] = &[
    no(&["--no-prune"], "there are no parents of images to keep"),
    but(&["--platform"], "images are taken for linux/amd64, which guests are", "leave it out"),
];

const PROGRAM: &[Row] = &[
    but(
        &["-H", "--host", "-c", "--context", "--tls", "--tlscacert", "--tlscert", "--tlskey", "--tlsverify"],
        "there is no daemon to connect to",
        "`--home DIR` or COFFER_HOME chooses where boxes and images are kept",
    ),
    but(&["-D", "--debug", "-l", "--log-level"], "what is logged is set in the environment", "COFFER_LOG=debug"),
    but(&["--config"], "the folder of config.json is set in the environment", "DOCKER_CONFIG=DIR"),
    but(&["-v"], "the version has no short flag", "`coffer --version`"),
];
