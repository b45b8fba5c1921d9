"""How a node's API server is brought to another etcd, so that a run that is killed anywhere harms nothing.

The manifest is replaced in one step, and not before everything that it needs, and all that is needed to put the former
one back, is on the disk. What a run left half done shows in `Record` and in the manifest itself: while the former one
is in place it is undone, once the wanted one is, it is seen through.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from etcd_operator.agent import manifest
from etcd_operator.agent.judgement import Ask, RefusedError, ask_etcd, judge
from etcd_operator.agent.manifest import ManifestError
from etcd_operator.agent.node_files import NodeFiles
from etcd_operator.agent.plan import FILES, MANIFEST, PKI_FOLDER, Plan, PlanInvalidError, Result
from etcd_operator.agent.processes import ProcessID
from etcd_operator.agent.readiness import Watch
from etcd_operator.agent.record import SAVED, STATE, Record, Records, digest
from etcd_operator.binding import arguments
from etcd_operator.binding.arguments import UnreadableArgumentsError
from etcd_operator.etcd.model import TLSIdentity
from etcd_operator.resources.names import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """The manifest on the node, the pod in it, the pod that is wanted, and the replacement that is under way."""

    text: bytes
    pod: Manifest
    wanted: Manifest
    under_way: Record | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    """One run on one node.

    certificate: contents of the files in `FILES`, by their names; empty: none are written.
    """

    plan: Plan
    certificate: Mapping[str, bytes]
    files: NodeFiles = field(default_factory=NodeFiles)
    watch: Watch = field(default_factory=Watch)
    ask: Ask = ask_etcd

    @property
    def _records(self) -> Records:
        return Records(files=self.files)

    def run(self) -> Result:
        """Bring about what the plan says; `OSError` for what the node refuses, which is as good as a kill."""
        try:
            return self._run()
        except RefusedError as refused:
            return refused.result()
        except PlanInvalidError as error:
            return Result(result="Refused", reason="PlanInvalid", message=str(error))
        except (ManifestError, UnreadableArgumentsError) as error:
            return Result(result="Refused", reason="ArgumentsUnreadable", message=f"{MANIFEST}: {error}")

    def _run(self) -> Result:
        paths = self._paths()
        for name in (MANIFEST, SAVED, STATE, *paths):
            self.files.clean_up(name)
        found = self._found()
        if paths:
            self._refuse_unmounted(found.wanted, paths)
        if found.wanted == found.pod:
            return self._carry_on(found, paths)
        self._refuse_strangers(found)
        if self.plan.check:
            judge(self.plan, found.pod, found.wanted, identity=self._identity(), files=self.files, ask=self.ask)
        return self._see_through(self._replace(found, paths), found.wanted)

    def _carry_on(self, found: _Found, paths: Mapping[str, bytes]) -> Result:
        """What is left to do once the wanted manifest is in place."""
        if found.under_way and found.under_way.failed:
            return self._roll_back(found.under_way)
        self._write_certificate(paths)
        return self._see_through(found.under_way, found.pod) if found.under_way else self._look(found.pod)

    def _paths(self) -> dict[str, bytes]:
        """What the certificate's files are to hold, by path, in the order of writing; raises `PlanInvalidError`."""
        if not self.certificate:
            servers = self.plan.flags.get("etcd-servers") or ""
            if self.plan.check and "https://" in servers:
                raise PlanInvalidError("the plan has encrypted servers and no certificate")
            return {}
        paths = {}
        for flag, file in FILES.items():
            path = self.plan.flags.get(flag)
            if file not in self.certificate or path is None:
                raise PlanInvalidError(f"the plan has a certificate, but no {file} or no --{flag}")
            if path.rpartition("/")[0] != PKI_FOLDER:  # never a file of kubeadm's
                raise PlanInvalidError(f"--{flag} of the plan is outside of {PKI_FOLDER}")
            paths[path] = self.certificate[file]
        return paths

    def _identity(self) -> TLSIdentity | None:
        held = self.certificate
        return TLSIdentity(ca=held["ca.crt"], cert=held["tls.crt"], key=held["tls.key"]) if held else None

    def _found(self) -> _Found:
        """The node as it is once a replacement that was cut short before the manifest's turn is undone."""
        text = self.files.read(MANIFEST)
        if text is None:
            raise RefusedError("ManifestMissing", f"there is no {MANIFEST} on the node")
        pod = manifest.read(text)
        wanted = manifest.changed(pod, self.plan)
        record = self._records.read()
        if record is not None and not record.done and record.former == digest(text):
            self._put_files_back(record)
            self._records.forget()
            record = None
        under_way = record if record is not None and not record.done and record.wanted == digest(text) else None
        return _Found(text=text, pod=pod, wanted=wanted, under_way=under_way)

    def _refuse_unmounted(self, wanted: Manifest, paths: Mapping[str, bytes]) -> None:
        for path in paths:
            if manifest.host_path(wanted, self.plan.container, path) != path:
                raise RefusedError(
                    "FilesUnreadable",
                    f"container {self.plan.container} does not see {path} of the node: mount {PKI_FOLDER}, or a folder"
                    " above it, at the same path",
                )

    def _refuse_strangers(self, found: _Found) -> None:
        """Raise where somebody else has changed the etcd flags since the operator looked; a run before may have."""
        present = self._flags(found.pod)
        if found.under_way or present in (self.plan.before, self._flags(found.wanted)):
            return
        told = " ".join(f"--{name}={value}" for name, value in sorted(present.items()))
        raise RefusedError(
            "ManifestChanged", f"the etcd arguments in {MANIFEST} are not those that the API server ran with: {told}"
        )

    def _flags(self, pod: Manifest) -> dict[str, str]:
        return arguments.flags(manifest.container(pod, self.plan.container))

    def _replace(self, found: _Found, paths: Mapping[str, bytes]) -> Record:
        """Put the wanted manifest in place, once all that could be needed is on the disk.

        Where the present one never proved itself, the one before it stays the one to go back to.
        """
        text, earlier = manifest.write(found.wanted), found.under_way
        former = self._records.former_manifest(earlier) if earlier else None
        held = earlier.files if earlier and former is not None else {path: self.files.read(path) for path in paths}
        record = Record(
            wanted=digest(text),
            former=digest(former or found.text),
            processes=self.watch.running(),
            files=held,
        )
        self._records.begin(record, former or found.text)
        self._write_certificate(paths)
        self.files.write(MANIFEST, text, mode=None)
        return record

    def _write_certificate(self, paths: Mapping[str, bytes]) -> None:
        for path, held in paths.items():
            self.files.write(path, held)

    def _see_through(self, record: Record, pod: Manifest) -> Result:
        """Wait for the API server with the manifest that is in place now; if it does not come, the former one is."""
        problem = self._wait(pod, besides=record.processes)
        if problem:
            told = f"the API server was not ready within {self.plan.patience:.0f} s: {problem}"
            return self._roll_back(replace(record, failed=told))
        self._records.note(replace(record, files={}, done=True))
        return Result(result="Applied", message=self._ready(pod))

    def _look(self, pod: Manifest) -> Result:
        """Whether the API server is ready with a manifest that proved itself, or that somebody else wrote."""
        problem = self._wait(pod, besides=())
        return Result(result="Unchanged", reason="NotReady" if problem else "", message=problem or self._ready(pod))

    def _ready(self, pod: Manifest) -> str:
        servers = self._flags(pod).get("etcd-servers")
        with_what = "without --etcd-servers" if servers is None else f"with --etcd-servers={servers}"
        return f"{self.plan.container} is ready {with_what}"

    def _wait(self, pod: Manifest, *, besides: Collection[ProcessID]) -> str:
        probe = manifest.probe(pod, self.plan.container)
        return self.watch.wait(self._flags(pod), probe, besides=besides, patience=self.plan.patience)

    def _roll_back(self, record: Record) -> Result:
        """Put the files back, then the manifest: the former API server reads its authority when it starts.

        It is noted first. A run after this one must not wait for an API server that was started in between, with the
        wanted arguments and the former authority.
        """
        told = record.failed
        text = self._records.former_manifest(record)
        if text is None:
            message = f"{told}; its former manifest is not kept any more, so that it could not be put back"
            return Result(result="Unchanged", reason="NotReady", message=message)
        # One that ran all the time is as good as a new one: the kubelet may have seen neither of the two changes.
        self._records.note(record)
        failed = self.watch.running() - record.processes
        self._put_files_back(record)
        self.files.write(MANIFEST, text, mode=None)
        worse = self._wait(manifest.read(text), besides=failed)
        self._records.forget()
        if worse:
            message = f"{told}; its former manifest is back, but {worse}"
            return Result(result="RolledBack", reason="NotRestored", message=message)
        message = f"{told}; its former manifest is back, and with that it is ready"
        return Result(result="RolledBack", reason="NotReady", message=message)

    def _put_files_back(self, record: Record) -> None:
        for path, held in record.files.items():
            if held is None:
                self.files.remove(path)
            else:
                self.files.write(path, held)
