"""`[policy]`, `[serving]`, `[publish]`, `[retention]`, `[store]`: what is served, goes live and is kept."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from recsys.config.section import Section
from recsys.errors import ConfigError
from recsys.tasks import DurationS

MAX_WORKERS = 256


class PolicyConfig(Section):
    """How predictions become positions."""

    name: Literal["greedy", "epsilon_plackett_luce"] = "epsilon_plackett_luce"
    epsilon: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of requests that explore by Plackett-Luce sampling."""
    temperature: float = Field(default=0.1, gt=0.0)
    """Scores are divided by this in the Plackett-Luce draw."""
    uniform_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of requests, such as .01, with one item drawn uniformly of those allowed, in one of the first 10
    positions. Such rows (`propensity_kind` "uniform") are a sample of the candidates that no model chose."""
    max_per_category: int = Field(default=0, ge=0)
    """At most so many items of one category on a page; 0 = no cap."""
    mmr: float = Field(default=0.0, ge=0.0, le=1.0)
    """Weight of similarity to items already placed (maximal marginal relevance)."""
    repeat: Literal["allow", "exclude", "learn"] = "exclude"
    """What becomes of items that the user already gave feedback of `repeat_kinds`: they are not shown again
    (`exclude`), shown like others (`allow`), or candidates of their own, with a score by how often and how
    lately, whose weight a night fits (`learn`; see `[fusion] sources`)."""
    repeat_kinds: tuple[str, ...] = ("purchase",)
    max_repeats: int = Field(default=0, ge=0)
    """With `learn`: at most so many items of a page are ones that the user took before; 0 = no cap."""
    similar_step: float = Field(default=0.05, ge=0.0, le=1.0)
    """Items similar to a seed are ordered by their cosine with it in steps of this size, and within a step by
    the user's taste. 0: by the cosine alone."""

    @property
    def excluded_kinds(self) -> tuple[str, ...]:
        """List the kinds of feedback after which an item is not shown again."""
        return self.repeat_kinds if self.repeat == "exclude" else ()


class ServingConfig(Section):
    """How the server behaves."""

    listen: str = "127.0.0.1:50051"
    admin_listen: str = "127.0.0.1:0"
    default_page_size: int = Field(default=10, ge=1)
    max_page_size: int = Field(default=200, ge=1)
    max_candidates: int = Field(default=2_000, ge=1)
    """Largest `Rank` request."""
    workers: Literal["auto"] | int = 1
    """Processes that answer; `auto`: one for each processor that this server may use, by its cgroup's quota.
    Each ranks one request at a time; a single one ranks as many as there are processors."""
    start_s: float = Field(default=600.0, gt=0)
    """A worker that is not ready by then is killed, and started again."""
    threads: int = Field(default=1, ge=1)
    """Torch threads of a scoring process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where requests are scored and items searched; `auto` takes a GPU where there is one. Items are searched
    on the CPU where FAISS is built without CUDA."""
    engine: Literal["auto", "eager", "bfloat16"] = "auto"
    """What computes the logits on a processor. `auto` measures, when a version is loaded, whether its largest
    product is faster in bfloat16, and takes that if predictions stay within 5e-3 of their range, else
    float32; `eager` is float32; `bfloat16` is not measured: a processor without it, or a version that misses
    its golden requests in it, is refused."""
    max_concurrent: int = Field(default=64, ge=1)
    deadline_ms: int = Field(default=1_000, ge=1)
    """Used when the caller sets none."""
    slow_call_ms: int = Field(default=500, ge=1)
    """A call that takes longer has a line in the log."""
    poll_s: float = Field(default=1.0, gt=0)
    """How often CURRENT is looked at."""
    cache: Path | None = None
    """Folder for verified, prepared copies of the loaded versions, which the host's workers map; on a local
    disk, and this user's alone. Default: RUNS/serving/cache."""
    keep_loaded: int = Field(default=2, ge=1, le=8)
    """Versions held in memory: the live one, and those live before it. Going back to one takes no loading."""
    drain_s: float = Field(default=10.0, ge=0)
    """How long calls in progress may take after SIGTERM."""
    connection_age_s: float = Field(default=60.0, ge=1)
    """Clients connect anew after so long, between two calls: only new connections reach a new worker."""
    reflection: bool = False
    more_kinds: tuple[str, ...] = ()
    """Kinds of feedback that are journalled beside those that heads, histories and `[policy]` name: kept for
    heads to come. Others are rejected: a misspelt kind would be lost without a word."""
    rotate: DurationS = 300
    """Age at which a journal file is sealed."""
    candidate_log_share: float = Field(default=0.05, ge=0.0, le=1.0)

    @field_validator("workers", mode="before")
    @classmethod
    def _auto_or_number(cls, value: Any) -> Any:
        # Checked whole: pydantic would say of a wrong one what each member of the union finds wrong with it.
        if value == "auto" or (type(value) is int and 1 <= value <= MAX_WORKERS):
            return value
        raise ValueError(f'is neither "auto" nor a number from 1 to {MAX_WORKERS}')


class PublishConfig(Section):
    """How a version is proved while it goes live."""

    check: bool = True
    """A server of its own loads the version and answers requests before anything is live."""
    check_s: float = Field(default=600.0, gt=0)
    """So long may that take; a large bundle is copied and verified first."""
    servers_s: float = Field(default=60.0, ge=0, le=3_600)
    """So long may running servers take to answer with the version, else it is rolled back; 0: no wait.
    One that is loading it has until `check_s`."""


class RetentionConfig(Section):
    """What a night leaves behind, and for how long."""

    nights: int = Field(default=7, ge=1)
    """So many newest nights, and newest promoted ones, keep bundles and stages; `[store] keep` if it is more.
    What is live, loaded or pinned, and what these came from, stays as well."""
    reports: int = Field(default=90, ge=1)
    """So many newest nights keep their reports."""
    headroom: float = Field(default=1.2, ge=1.0)
    """A night does not start unless the disk has so many times the room that it is thought to need."""


class StoreConfig(Section):
    """Where the online features live."""

    url: str = "sqlite"
    """`sqlite` (in RUNS/store), `redis://user@host:port/0`, `redis+cluster://host:port`; rediss: TLS."""
    keep: int = Field(default=3, ge=1)
    """Nights whose versions, updates included, are kept beside those that servers have loaded."""
    events_per_user: int = Field(default=1_000, ge=1)
    """A read gives a user's newest events of the delta, at most so many; Redis keeps no more."""
    namespace: str = Field(default="recsys", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """What this shop's keys begin with; shops that share a server need one each."""
    password_env: str = "RECSYS_STORE_PASSWORD"
    """The environment variable that holds the password, if the server wants one."""
    tls_ca_file: Path | None = None
    """Authority that signed the server's certificate; default: the system's."""
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    connect_timeout_ms: int = Field(default=50, ge=1)
    read_timeout_ms: int = Field(default=50, ge=1)
    """Of one read or append; a user whose read takes longer is answered as an unknown one."""
    write_timeout_ms: int = Field(default=5_000, ge=1)
    """Of one step of publishing and collecting, and of waiting for another writer."""
    pool_size: int = Field(default=16, ge=1)
    breaker_failures: int = Field(default=3, ge=1)
    """After so many failures in a row the store is left alone …"""
    breaker_open_ms: int = Field(default=1_000, ge=1)
    """… for so long; then one call tries again."""
    delta_ttl: DurationS = 30 * 86_400
    """A user's events are dropped when none came for so long; it must outlast three periods."""
    memory_headroom: float = Field(default=1.2, ge=1.0)
    """A version is refused when the server has less room than its estimated size times this."""

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str) -> str:
        # Raised as it is, not as a ValueError: pydantic would print the value, and with it the password.
        if "@" in value and ":" in value.split("://", 1)[-1].rsplit("@", 1)[0]:
            raise ConfigError(
                "[store] url holds a password; take it out, write `user@host`, and put the password into the "
                "environment variable that password_env names (RECSYS_STORE_PASSWORD)"
            )
        return value
