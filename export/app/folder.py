"""The folder that a run is exported to: packages, golden arrays, PyTorch weights, tokenizer, manifest and report."""

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from export.agreement import LEAST_PSNR
from export.app import manifest as manifests
from export.app.denoisers import EXPORTERS, Exporter
from export.app.ffn_memory import ffn_memory
from export.app.parts import call_tokens, check_decoder, dit_parts, text_part, vae_parts
from export.app.report import write_export_report
from export.app.settings import Settings, distillation_warnings, own_steps
from export.app.tokenizer import write_tokenizer
from export.app.verify import Figures, failures, lost_tiles, verify_record
from export.app.whole_clip import GeneratedClip, generate_clip
from export.app.widths import WidthFamily, check_widths, whole_tiles, width_generators
from export.app.write import write_parts
from export.coreml.package import UNCOMPRESSED
from export.metadata import Metadata
from export.part import Part, joined
from export.phone.denoisers import FORMS
from export.phone.steps import phone_steps
from export.pytorch.dit import check_form
from mobile_video_jax.core.claim import check_free
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.lock import new_folder
from mobile_video_jax.cost.phone.tiles import tokens_at_a_time
from mobile_video_jax.dit.step_table import COMPUTED
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.text.encoder_name import EncoderName

Progress = Callable[[str], None]
GENERATED = "drawn"  # the folder of the clips that the verification generates


def export_run(run: Run | Path, out: Path, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Writes the folder, whole or not at all, and returns the content of its report.json, `failures` included.

    Raises UserError for a folder that is not free, for a run that is missing, damaged or without latent statistics, and
    for settings that do not fit it.
    """
    check_free(out)
    opened = Run.open(run)
    check_widths(opened, settings)
    with new_folder(out) as folder:
        generators: list[Generator] = []
        if opened.stage == "vae":
            bundle = opened.vae()
            clips = _shapes(settings.clips or (opened.config["clip"],), bundle)
            groups = _grouped([vae_parts(bundle, clip, folder) for clip in clips], manifests.function_names(clips))
            rate = opened.record.get("description", {}).get("frame_rate")
            described = manifests.of_vae(bundle, clips) | ({"frame_rate": rate} if rate else {})
        else:
            _check_blocks(opened)
            _check_stream(opened, settings)
            check_form(opened.denoiser.config.model, streams=settings.stream)
            generators = _generators(opened, settings)
            check_decoder(generators[0].vae.vae)  # before minutes of conversion
            family = None
            if settings.widths:
                generators, family = width_generators(generators[0], settings.widths)
            steps = settings.steps or own_steps(opened.denoiser.sampling)
            generators[0].sample_config(steps=steps, guidance=1.0)  # raises for steps that the run cannot be sampled in
            tiles = _exporter(opened).tiles(settings, opened.denoiser.config.model, _most_tokens(generators, settings))
            tiles = whole_tiles(tiles, settings.widths, chosen=bool(settings.tiles))
            settings = dataclasses.replace(settings, steps=steps, tiles=tiles)
            groups = _groups(generators, family, settings, folder, progress)
            described = manifests.of_transformer(
                generators, settings.steps, stream=settings.stream, widths=settings.widths
            )
            warnings = distillation_warnings(opened.denoiser.sampling, settings.steps)
            for warning in warnings:
                progress(f"warning: {warning}")
            described |= {"form": settings.form, "cut_inputs": settings.cut_inputs, "warnings": warnings}
            described["tiles"] = list(settings.tiles)
        origin = manifests.origin(opened)
        metadata = Metadata(settings.author, settings.licence, str(run), origin["commit"], settings.weights.kind)
        packages, assets, figures = write_parts(groups, folder, settings, metadata, progress)
        manifest = {**origin, **described, "packages": packages, "assets": assets}
        write_json(folder / manifests.NAME, manifest)
        report = _verify(folder, manifest, figures, generators, settings, progress)
    return report


def _verify(
    folder: Path,
    manifest: dict[str, Any],
    assets: Sequence[Figures],
    generators: Sequence[Generator],
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    """Verifies the packages and writes the figures into manifest.json, report.json and report.html."""
    rows = []
    for record in _records(manifest["packages"], settings):
        progress(f"{record['name']}: running each op")
        rows.append(verify_record(folder, record))
        record |= {key: rows[-1][key] for key in ("relative_error", "psnr")}
    least = settings.weights.target_psnr or LEAST_PSNR
    failed = [line for row in rows for line in failures(row, least)]
    failed += [line for row in assets for line in failures({**row, "name": f"{row['name']}.aimodel"}, least)]
    if not settings.widths:  # their tiles are cut into blocks
        tiles = _computed_tiles(manifest.get("tiles", ()), generators)
        failed += lost_tiles(rows, tiles, cut_inputs=settings.cut_inputs)
    clips: list[GeneratedClip] = []
    if settings.check == "clip":
        clips = [
            generate_clip(folder, manifest, i, generator, settings.prompt, progress)
            for i, generator in enumerate(generators)
        ]
        for clip in clips:
            clip.save(folder / GENERATED)
            failed += clip.failures
    shutil.rmtree(folder / UNCOMPRESSED, ignore_errors=True)
    manifest["verification"] = {"passed": not failed, "failures": failed, "clips": [clip.figures for clip in clips]}
    write_json(folder / manifests.NAME, manifest)
    progress("report")
    return write_export_report(folder, manifest, rows, assets, clips, _ffn_memory(generators, settings))


def _computed_tiles(tiles: Sequence[int], generators: Sequence[Generator]) -> list[int]:
    """The tiles of the blocks whose FFN some step computes."""
    table = generators[0].denoiser.sampling.reuse if generators else ()
    computed = [any(step.letter(i, "ffn") == COMPUTED for step in phone_steps(table)) for i in range(len(tiles))]
    return [k for k, some in zip(tiles, computed, strict=True) if some or not table]


def _records(records: list[Any], settings: Settings) -> list[Any]:
    """The packages to verify: all, or the first that is no text encoder."""
    return records if settings.check != "one" else [each for each in records if each["name"] != "text"][:1]


def _ffn_memory(generators: Sequence[Generator], settings: Settings) -> list[dict[str, int]]:
    """Memory of the largest FFN at the largest clip, for the tokens that it has at a time."""
    if not generators:
        return []
    model = generators[-1].denoiser.config.model
    if not (sizes := FORMS[type(model)].largest_ffn(model)):
        return []
    (width, hidden), tokens = sizes, _most_tokens(generators, settings)
    tokens = tokens_at_a_time(width, tokens) if settings.layout.in_pieces else tokens
    return ffn_memory(width, hidden, tokens, settings.layout, settings.cut_inputs)


def _exporter(run: Run) -> Exporter:
    return EXPORTERS[type(run.denoiser.config.model)]


def _most_tokens(generators: Sequence[Generator], settings: Settings) -> int:
    """Tokens of the largest call; all clips' functions have its tiles, so that they share weights."""
    return max(call_tokens(generator, settings) for generator in generators)


def _check_stream(run: Run, settings: Settings) -> None:
    """Raises UserError for a stream of a run that sees whole clips."""
    if settings.stream and not run.denoiser.config.model.stream_chunk:
        raise UserError(f"{run} sees whole clips and cannot stream: leave out --stream, or train it causal")


def _check_blocks(run: Run) -> None:
    """Raises UserError for a block whose sizes this version does not know."""
    if "family" in run.config["model"]:  # of another network, whose sizes its own config checks
        return
    known = ("heads", "cross_heads", "ffn")  # DitConfig.blocks
    for i, block in enumerate(run.config["model"]["blocks"]):
        if len(block) != len(known):
            raise UserError(
                f"{run}: block {i}, {block}, is of an unknown kind: name a run whose have {', '.join(known)}"
            )


def _generators(run: Run, settings: Settings) -> list[Generator]:
    """A generator for each shape of clips, all with the same networks."""
    names = settings.clips or ("",)
    first = Generator.load(run, settings.vae, settings.text_encoder, clip=names[0])
    shapes = [first.clip, *_shapes(names[1:], first.vae)]
    return [dataclasses.replace(first, clip=clip) for clip in shapes]


def _shapes(names: Sequence[str], bundle: VaeBundle) -> list[ClipShape]:
    return [ClipShape.parse(name).check(bundle.vae.config.strides) for name in names]


def _groups(
    generators: Sequence[Generator],
    family: WidthFamily | None,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> Iterator[list[Part]]:
    """The functions of each package of a transformer's run, one package after the other; writes its tokenizer too."""
    first = generators[0]
    config = first.denoiser.config
    for line in write_tokenizer(first.text_encoder, config.text_tokens, folder):
        progress(f"warning: {line}")
    source = EncoderName.parse(settings.text_encoder or config.text_encoder)
    yield [text_part(first.text_encoder, source, settings, config.text_tokens, folder)]
    clips = list(dict.fromkeys(generator.clip for generator in generators))
    parts = functools.partial(dit_parts, family=family) if family else EXPORTERS[type(config.model)].parts
    functions = manifests.function_names([generator.clip for generator in generators], settings.widths)
    yield from _grouped([parts(generator, settings, folder) for generator in generators], functions)
    yield from _grouped([vae_parts(first.vae, clip, folder) for clip in clips], manifests.function_names(clips))


def _grouped(parts: Sequence[Iterator[Part]], names: Sequence[str]) -> Iterator[list[Part]]:
    """Groups the parts of the same name, of all clips or widths, as functions of a package. An image has no vae_next.

    `names` are the functions' names.
    """
    for group in itertools.zip_longest(*map(_packages, parts), fillvalue=[]):
        yield [
            dataclasses.replace(part, function=joined(name, part.function))
            for functions, name in zip(group, names, strict=True)
            for part in functions
        ]


def _packages(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """The functions of each package for one clip."""
    for _, functions in itertools.groupby(parts, key=lambda part: part.name):
        yield list(functions)
