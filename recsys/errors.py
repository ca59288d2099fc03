"""Every error this project raises on purpose.

RecsysError
├── ConfigError     a config file or an argument is wrong
├── DataError       a log, a table or a column breaks its contract
│   └── DamagedStageError   a finished stage's files are not what was written
├── BundleError     a bundle is missing, corrupt, too new, or does not reproduce its golden requests
├── RegistryError   a version cannot be activated, rolled back to, or locked
│   └── MovedError  another version went live meanwhile
├── StoreError      the online feature store cannot be read or published
│   ├── MissingUsersError   it answers, and does not have a version's users
│   └── StoreMovedError     another publisher pointed it at another version meanwhile
├── RequestError    a request over gRPC is malformed
├── JournalError    what was served cannot be written down: disk full, no permission
└── WorkerError     the worker processes of a server cannot be started or stopped

Exit codes 10, 11 and 15 are verdicts of a night (HOLD, HOLD_UNDERPOWERED, CHECK_FAILED), 12 is a client's
failed call, 14 is the third night in a row that was held.
Every message says what is wrong, where, the offending value, and the remedy.
"""


class RecsysError(Exception):
    """Root of the tree; the CLI prints it without a traceback."""

    exit_code = 1


class ConfigError(RecsysError):
    """Raised when a TOML file, an environment variable or a flag has a wrong key, type or range."""

    exit_code = 2


class DataError(RecsysError):
    """Raised when data on disk breaks the contract of its table."""

    exit_code = 3


class DamagedStageError(DataError):
    """Raised when a finished stage's files are not what was written; it is forgotten, to be built again."""


class BundleError(RecsysError):
    """Raised when a bundle cannot be trusted: hash, schema version, or golden requests differ."""

    exit_code = 4


class UserKeyError(BundleError):
    """Raised when a bundle's users are hashed with a key that is not there: the bundle itself is sound."""


class RegistryError(RecsysError):
    """Raised when the registry cannot do what was asked: unknown version, lock held, lost compare-and-set."""

    exit_code = 5


class MovedError(RegistryError):
    """Raised when what was believed live is not live any more."""


class StoreError(RecsysError):
    """Raised when the online store is missing a version, cannot be written, or fails verification."""

    exit_code = 6


class MissingUsersError(StoreError):
    """Raised when the online store answers and does not have a version: never published, or collected."""


class StoreMovedError(StoreError):
    """Raised when the online store points elsewhere than was believed."""


class RequestError(RecsysError):
    """Raised when a request's field is out of range; the server answers INVALID_ARGUMENT."""

    exit_code = 7


class JournalError(RecsysError):
    """Raised when the journal cannot be written: disk full, no permission, device gone."""

    exit_code = 9


class WorkerError(RecsysError):
    """Raised when the worker processes of a server cannot be started or stopped.

    Args: exit_code: that of the worker's own error, where it had one.
    """

    exit_code = 13

    def __init__(self, message: str, exit_code: int = exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code
