"""etcd's last words, as it really wrote them (stack traces shortened), and what they are taken for."""

import pytest

from etcd_operator.etcd.failures import Kind, judge

FATAL = '{"level":"fatal","ts":"2026-11-21T11:37:32.957825Z","caller":"etcdmain/etcd.go:157","msg":"discovery failed",'
TRACE = '"stacktrace":"go.etcd.io/etcd/server/v3/etcdmain.startEtcdOrProxyV2\\n\\tgo.etcd.io/etcd/server/v3"}'
GOROUTINE = """
goroutine 136 [running]:
go.uber.org/zap/zapcore.CheckWriteAction.OnWrite(0x2?, 0x780d45?, {0x0?, 0x0?, 0x378ee5b99460?})
\tgo.uber.org/zap@v1.28.0/zapcore/entry.go:196 +0x54
main.main()
\tetcd/main.go:11 +0x28
"""
#: What a healthy member writes every now and then.
DAILY = (
    '{"level":"warn","ts":"2026-11-21T11:39:13.406650Z","caller":"embed/config_logging.go:194","msg":"rejected '
    'connection on peer endpoint","remote-addr":"10.0.0.1:60266","server-name":"","error":"tls: bad certificate"}\n'
    '{"level":"info","ts":"2026-11-21T11:39:14.406650Z","msg":"address already in use, for all you know"}\n'
)


def fatal(error: str) -> str:
    return f'{FATAL}"error":"{error}",{TRACE}\n'


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        (
            fatal(
                "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
            ),
            "fuse",
            "the data directory is empty",
        ),
        (fatal("member c9dd2e6146caf9ba has already been bootstrapped"), "already_bootstrapped", "exists already"),
        (
            fatal("error validating peerURLs {ClusterID:b8 Members:[&{ID:16}] RemovedIDs:[]}: member count is unequal"),
            "member_list",
            "not the cluster's: error validating peerURLs: member count is unequal",
        ),
        (
            fatal("open /etc/etcd/a-3.yaml: no such file or directory"),
            "no_file",
            "has no configuration file yet: open /etc/etcd/a-3.yaml",
        ),
        (fatal("open /tls/peer/tls.crt: no such file or directory"), "tls", "cannot be read: open /tls/peer/tls.crt"),
        (fatal("tls: private key does not match public key"), "tls", "do not belong together"),
        (fatal("listen tcp 0.0.0.0:2379: bind: address already in use"), "address_in_use", "0.0.0.0:2379"),
        (
            fatal("cannot access data directory: open /var/lib/etcd/i1/.touch: read-only file system"),
            "storage",
            "the volume is read-only",
        ),
        (
            fatal("cannot access data directory: mkdir /var/lib/etcd/i1: permission denied"),
            "storage",
            "permission denied",
        ),
        (fatal('version \\"3.7.0\\" is not supported'), "wrong_version", 'written by a newer etcd: version "3.7.0"'),
        (fatal("incompatible with current running cluster"), "wrong_version", "a version it cannot join"),
        (fatal("server is stopping"), "stopped", "told to stop, or removed"),
        (
            '{"level":"warn","ts":"2026","caller":"etcdmain/etcd.go:65","msg":"failed to verify flags","error":"error '
            "unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field "
            'configYAML.Config.max-txn-ops of type uint"}',
            "bad_option",
            "refuses its configuration: error unmarshaling JSON",
        ),
        ('panic: unrecognized level: "loud"\n' + GOROUTINE, "bad_option", 'unrecognized level: "loud"'),
        (
            'n\\tgo.etcd.io/etcd/server/v3@v3.7.3/storage/backend.go:76"}\n{"level":"panic","ts":"2026","caller":"'
            'backend/backend.go:215","msg":"failed to open database","path":"/var/lib/etcd/i1/member/snap/db",'
            f'"error":"invalid database",{TRACE}\npanic: failed to open database\n{GOROUTINE}',
            "corrupt",
            "its database cannot be opened: invalid database",
        ),
        (
            "panic: tocommit(25) is out of range [lastIndex(1)]. Was the raft log corrupted, truncated, or lost?\n"
            + GOROUTINE,
            "lost_entries",
            "its disk lost writes, or is an older copy",
        ),
        ("panic: failed to create WAL\n" + GOROUTINE, "storage", "may be full or read-only"),
        (
            'rror":"write /x: no space left on device","stacktrace":"go"}\npanic: failed to create WAL\n',
            "storage",
            "full",
        ),
        ("panic: runtime error: index out of range\n" + GOROUTINE, "unknown", "etcd ended: runtime error: index out"),
    ],
)
def test_last_words(log: str, kind: Kind, words: str) -> None:
    failure = judge(DAILY + log, 1)
    assert failure.kind == kind
    assert words in failure.sentence


def test_a_line_whose_beginning_was_cut_still_counts() -> None:
    whole = fatal("tls: private key does not match public key")
    assert judge(whole[90:], 1).kind == "tls"


@pytest.mark.parametrize(("code", "kind"), [(0, "stopped"), (137, "killed"), (143, "stopped")])
def test_daily_warnings_are_no_reason(code: int, kind: Kind) -> None:
    assert judge(DAILY, code).kind == kind


def test_what_says_nothing_is_unknown() -> None:
    assert judge("", None).sentence == "etcd ended and left no message"
    assert judge(DAILY, 255).sentence == "etcd ended with exit code 255 and left no message", "a node lost power"
    assert (
        judge(GOROUTINE, 2).sentence
        == "etcd ended with exit code 2, as after a panic; `kubectl logs --previous` tells why"
    )
    assert judge('{"level":"info","msg":"half a li', 1).kind == "unknown"


def test_long_reasons_are_cut_to_one_line() -> None:
    sentence = judge(fatal("x" * 1000 + "\\nlast"), 1).sentence
    assert len(sentence) < 300
    assert sentence.endswith("last")
    assert "\n" not in sentence
