"""TransferReport -> report.html, report.md and report.json."""

from pathlib import Path

from training.report.report_files import report_environment, write_files
from training.report.transfer.transfer_plots import affinity_map, cosine_curves, cosine_map, occupancy_map
from training.report.transfer.transfer_report import TransferReport


def write_transfer(report: TransferReport, out: Path) -> list[Path]:
    """Write the three files into a folder; a file that is there is replaced whole.

    Raises: DataError when the folder cannot be written.
    """
    return write_files(
        {
            "report.html": render_transfer(report, "transfer.html.j2"),
            "report.md": render_transfer(report, "transfer.md.j2"),
            "report.json": report.model_dump_json(indent=1) + "\n",
        },
        out,
    )


def render_transfer(report: TransferReport, template: str) -> str:
    """Fill one template."""
    environment = report_environment(template)
    gates = list(report.health.gates.values())
    environment.globals |= {
        "effects": {name: head.effect for name, head in report.heads.items()},
        "num_experts": len(gates[0].occupancy) if gates else 0,
        "cosine_map": cosine_map,
        "cosine_curves": cosine_curves,
        "affinity_map": affinity_map,
        "occupancy_map": occupancy_map,
    }
    return environment.get_template(template).render(report=report)
