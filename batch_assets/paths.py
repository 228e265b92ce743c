"""Where every file of a pipeline lies: the only place that knows.

All paths are relative to the pipeline's output root and use `/`. What is in the files belongs
to the modules that write them.
"""

import datetime
import hashlib
import re

PIPELINE = "pipeline.json"
CURRENT = "merged/CURRENT"
SPOOLS = "spool"
PROBES = "jobs/probes"
RESULTS_MANIFEST = "manifest.json.out"
"""What Bedrock counts of a job's results, in a file beside them."""
UNREADABLE = "plan/unreadable.json"
"""The source files that no plan could read."""
REMOVED = "plan/removed.json"
"""The generations of requests that were not to be kept any longer."""
WINDOWS = "requests"
"""The folder of sealed windows: the source of a pipeline whose records are requests."""
FILES = "client_files"
"""What clients have uploaded, and what their batches have come to."""
FOLDERS = (WINDOWS, FILES, "plan", SPOOLS, "jobs", "shards", "merged")
"""The folders of an output root that are the pipeline's own."""
# Where `output.single_file` says so: copies for readers of one file.
SINGLE_FILE = "embeddings.parquet"
SINGLE_METADATA = "metadata.json"


SHARD_KEY = r"g[0-9]{4,}-[0-9]{5,}"
"""The pattern of a shard's key."""
_PLAN = re.compile(r"plan/g(\d{4,})\.parquet")


def shard_key(generation: int, ordinal: int) -> str:
    """Key of a shard, which is also its partition key: g0001-00042."""
    return f"g{generation:04d}-{ordinal:05d}"


def is_shard_key(text: str) -> bool:
    """Whether this is how shards are called."""
    return re.fullmatch(SHARD_KEY, text) is not None


def shard_generation(shard: str) -> int:
    """The generation in a shard's key."""
    return int(shard[1:].split("-", 1)[0])


def shard_order(shard: str) -> tuple[int, int]:
    """By this shards stand in the order of planning: as text, g10000 comes before g9999."""
    return shard_generation(shard), shard_ordinal(shard)


def shard_ordinal(shard: str) -> int:
    """The ordinal in a shard's key."""
    return int(shard.rsplit("-", 1)[1])


def plan(generation: int) -> str:
    return f"plan/g{generation:04d}.parquet"


def plan_summary(generation: int) -> str:
    return f"plan/g{generation:04d}.json"


def plan_snapshot(base_uri: str) -> str:
    """What all plans together say of the source at `base_uri`."""
    return f"plan/known-{hashlib.sha256(base_uri.encode()).hexdigest()[:8]}.parquet"


def plan_table(digest: str) -> str:
    """What a plan has fixed of the files of a table, by the digest of its content."""
    return f"plan/table-{digest[:16]}.parquet"


def plan_generation(path: str) -> int | None:
    """The generation whose plan lies at `path`; None for any other file."""
    found = _PLAN.fullmatch(path)
    return int(found[1]) if found is not None and plan(int(found[1])) == path else None


def spool(digest: str) -> str:
    """Normalized copy of a source file that allows no random access."""
    return f"{SPOOLS}/{digest}.parquet"


def window_name(opened: datetime.datetime, digits: str) -> str:
    """The name of a window by the time at which it was opened (UTC), and 12 hexadecimal digits."""
    return f"{opened:%Y%m%dT%H%M}-{digits}"


def window_file(name: str) -> str:
    """The file of a window, relative to the folder of windows: by the minute in its name."""
    found = _WINDOW.fullmatch(name)
    if found is None:
        raise ValueError(f"no window is called {name!r}")
    return f"{'/'.join(found.groups())}/{name}.jsonl"


def window_of(path: str) -> str | None:
    """The name of the window whose file, relative to the folder of windows, this is; None for any other file."""
    name = path.rpartition("/")[2].removesuffix(".jsonl")
    return name if _WINDOW.fullmatch(name) and window_file(name) == path else None


_WINDOW = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})-[0-9a-f]{12}", re.ASCII)


def client_file(file_id: str) -> str:
    """The file with this id, of a client of the HTTP server."""
    if not _FILE_ID.fullmatch(file_id):
        raise ValueError(f"no file is called {file_id!r}")
    return f"{FILES}/{file_id}.jsonl"


_FILE_ID = re.compile(r"file-[0-9a-f]{32}", re.ASCII)


def shard_folder(shard: str) -> str:
    return f"shards/{shard}"


def input_manifest(shard: str) -> str:
    return f"shards/{shard}/input.json"


def shard_marker(shard: str) -> str:
    """The commit marker: the shard is what this file says, and nothing else is."""
    return f"shards/{shard}/shard.json"


def embeddings(shard: str, fence: int, run: int = 0) -> str:
    """`run` tells apart those who write under one fence, without a ledger at hand: workers of services and of Ray."""
    return f"shards/{shard}/embeddings-{_numbered(fence, run)}.parquet"


def failures(shard: str, fence: int, run: int = 0) -> str:
    return f"shards/{shard}/failures-{_numbered(fence, run)}.parquet"


def _numbered(fence: int, run: int) -> str:
    return f"{fence}-{run}" if run else str(fence)


def job_folder(shard: str, fence: int) -> str:
    """Of one job: its request files (which may lie on the staging area instead) and its description."""
    return f"jobs/{shard}/{fence}"


def job_description(shard: str, fence: int) -> str:
    return f"jobs/{shard}/{fence}/job.json"


def pool_description(name: str) -> str:
    """Which jobs share one submission."""
    return f"jobs/pools/{name}.json"


def attempt_rows(shard: str, fence: int) -> str:
    """What a job has settled, of a shard that needs another one."""
    return f"shards/{shard}/attempts/{fence}/rows.parquet"


def attempt_marker(shard: str, fence: int) -> str:
    """Written last: the attempt's rows count, and so does its cost."""
    return f"shards/{shard}/attempts/{fence}/attempt.json"


def worker_manifest(name: str) -> str:
    """What the workers of one submission are to do."""
    return f"jobs/manifests/{name}.json"


def worker_run(shard: str, fence: int, run: int) -> str:
    """Taken by a worker before it writes: no two write files of one name."""
    return f"shards/{shard}/attempts/{fence}/run-{run}.json"


def worker_error(shard: str, fence: int, run: int) -> str:
    """Why a worker's run ended without a commit."""
    return f"shards/{shard}/attempts/{fence}/error-{run}.json"


def probe(digits: str) -> str:
    """An object by which a store is tried out, and which is deleted at once; `digits` are 16, hexadecimal."""
    return f"{PROBES}/{digits}"


def merged_folder(version: str) -> str:
    return f"merged/{version}"


def merged_data(version: str) -> str:
    """The folder of a version's rows, with nothing else in it: readers take it as a dataset.

    Older versions have their parts one level up; `Manifest.data_folder` tells.
    """
    return f"merged/{version}/data"


def merged_group(folder: str) -> str:
    """The folder of a group, relative to the version's folder."""
    return f"data/{folder}"


def merged_part(version: str, number: int, group: str | None = None) -> str:
    """A file of a version, or of the group whose folder, relative to the version's, is `group`."""
    folder = merged_data(version) if group is None else f"{merged_folder(version)}/{group}"
    return f"{folder}/part-{number:05d}.parquet"


def merged_failures(version: str) -> str:
    return f"merged/{version}/failures.parquet"


def merged_manifest(version: str) -> str:
    return f"merged/{version}/manifest.json"


def merged_metadata(version: str) -> str:
    return f"merged/{version}/metadata.json"


def fence_of(path: str) -> int | None:
    """The fence in the name of a shard's or a job's file; None where there is none."""
    found = _FENCED.match(path)
    return None if found is None else int(next(filter(None, found.groups())))


_FENCED = re.compile(r"(?:shards/[^/]+/(?:(?:embeddings|failures)-(\d+)|attempts/(\d+)/)|jobs/[^/]+/(\d+)/)")
_OWN_FOLDER = "(?:-[0-9a-f]{8})?"
_REQUEST_FILE = rf"{SHARD_KEY}-\d+{_OWN_FOLDER}-\d{{5,}}\.(?:jsonl|csv)"
_IN_JOB = "|".join(
    (
        rf"requests{_OWN_FOLDER}/{_REQUEST_FILE}",
        rf"requests{_OWN_FOLDER}-answers/\d+\.json",
        # A service names its results after the requests; Bedrock puts them into a folder named after the job.
        rf"results{_OWN_FOLDER}/(?:[0-9A-Za-z-]+/)?(?:{_REQUEST_FILE}|manifest\.json)\.out",
    )
)
_OWN = re.compile(
    "|".join(
        (
            r"spool/[0-9a-f]{16}\.parquet",
            r"requests/[0-9]{4}(?:/[0-9]{2}){4}/[0-9]{8}T[0-9]{4}-[0-9a-f]{12}\.jsonl",
            rf"shards/{SHARD_KEY}/(?:input\.json|shard\.json|(?:embeddings|failures)-\d+(?:-\d+)?\.parquet)",
            rf"shards/{SHARD_KEY}/attempts/\d+/(?:rows\.parquet|attempt\.json|(?:run|error)-\d+\.json)",
            rf"jobs/{SHARD_KEY}/\d+/(?:job\.json|{_IN_JOB})",
            rf"jobs/pools/[0-9a-f]+-[0-9a-f]{{8}}/(?:{_IN_JOB})",
            r"jobs/manifests/[0-9A-Za-z-]+\.json",
            r"jobs/probes/[0-9a-f]{16}",
            r"merged/v\d{6,}-[0-9a-f]{8}/(?:failures\.parquet|manifest\.json|metadata\.json)",
            # Older versions have no folder `data`.
            r"merged/v\d{6,}-[0-9a-f]{8}/(?:data/)?(?:[0-9A-Za-z_-]+/)?part-\d{5,}\.parquet",
        )
    )
)
UNFINISHED = r"(?P<where>[0-9a-f]{12}-[0-9]+)-(?P<pid>[0-9]+)-(?P<started>[0-9]+)-[0-9a-z_]{8}\.unfinished"
"""How the name of a local file ends that is being written, where its process can be named."""
_TEMPORARY = re.compile(rf"(?P<folder>.*/|)\.(?P<name>[^/]+)\.(?:[a-z0-9_]{{8}}|{UNFINISHED})")


def is_own_name(path: str) -> bool:
    """Whether a file that may be deleted has exactly such a name as this program gives, or one of its temporary files.

    Somebody else's file may have such a name all the same: it takes a record of having written it, too.
    """
    temporary = _TEMPORARY.fullmatch(path)
    return _OWN.fullmatch(path if temporary is None else temporary["folder"] + temporary["name"]) is not None


def is_inside(path: str) -> bool:
    """Whether a relative path stays in the folder that it starts from: no `..`, no empty part, not absolute."""
    return "\0" not in path and not {"", ".", ".."}.intersection(path.split("/"))
