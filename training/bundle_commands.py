"""Commands that look at bundles and move the live pointer: recsys bundle list, show, verify, activate, ….

A rollback is for a bad moment, perhaps on a host that has no processor to spare: what it imports is most of
its time. So nothing here imports Polars or torch before it needs them.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from recsys.config import StoreConfig, default_config, load_config
from recsys.options import ConfigOption, RunsOption

VersionArgument = Annotated[str, typer.Argument(help="A bundle version; `recsys bundle list` shows them.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why, for the record of what was live.")
]


def bundle_list_command(runs: RunsOption) -> None:
    """List bundle versions, oldest first, with the verdict of the night that made them."""
    from recsys.registry import Registry
    from training.console import print_bundles

    registry = Registry(runs)
    registry.require_folder()
    print_bundles(registry)


def bundle_show_command(version: VersionArgument, runs: RunsOption) -> None:
    """Print one bundle's manifest and record as JSON."""
    from recsys.manifest import read_manifest
    from recsys.registry import Registry

    registry = Registry(runs)
    manifest = read_manifest(registry.require(version)).model_dump(mode="json")
    record = registry.record(version)
    said = {"manifest": manifest, "record": record.model_dump(mode="json") if record else None}
    print(json.dumps(said, indent=1))


def bundle_verify_command(version: VersionArgument, runs: RunsOption) -> None:
    """Check every hash of a bundle and reproduce its golden requests in float32."""
    from training.publish import verify_version

    num_files, found = verify_version(runs, version)
    print(
        f"{version}: {num_files} files match, {found['requests']:.0f} golden requests "
        f"reproduced in float32 (largest difference {found['max_difference']:.1e} of a range, at least "
        f"{found['min_retrieved_overlap']:.0%} of the retrieved items agree)"
    )


def bundle_activate_command(
    version: VersionArgument, runs: RunsOption, config: ConfigOption = None, reason: ReasonOption = "by hand"
) -> None:
    """Make a version live; servers pick it up by themselves.

    Its users have to be in the store that the config names: they are published again if they are not.
    """
    from recsys.registry import Registry
    from training.republish import with_users

    registry = Registry(runs)
    registry.require(version)
    before = registry.current()
    with with_users(registry, _store(config)) as ensure:
        ensure(version)
        registry.activate(version, why=reason)
    print(f"{version} is live (before: {before or 'nothing'})")


def bundle_rollback_command(
    runs: RunsOption, config: ConfigOption = None, reason: ReasonOption = "by hand"
) -> None:
    """Make the version before the live one live again.

    No night brings back the one that was live; `recsys bundle activate` does.
    """
    from recsys.registry import Registry
    from training.republish import with_users

    registry = Registry(runs)
    registry.require_folder()
    before = registry.current()
    with with_users(registry, _store(config), must=False) as ensure:
        version = registry.rollback(why=reason, check=ensure)
    print(f"{version} is live again (before: {before})")


def bundle_pin_command(version: VersionArgument, runs: RunsOption, reason: ReasonOption = "by hand") -> None:
    """Keep a version, whatever `[retention]` says, until it is unpinned."""
    from recsys.registry import Registry
    from recsys.retention import pin

    pin(Registry(runs), version, reason)
    print(f"{version} is pinned: {reason}")


def bundle_unpin_command(version: VersionArgument, runs: RunsOption) -> None:
    """Let a pinned version go, when nothing else keeps it."""
    from recsys.registry import Registry
    from recsys.retention import unpin

    registry = Registry(runs)
    registry.require_folder()
    unpin(registry, version)
    print(f"{version} is not pinned any more")


def _store(config: Path | None) -> StoreConfig:
    """Read where the store is; features, which only nights and servers need, are not checked."""
    return (default_config() if config is None else load_config(config)).store
