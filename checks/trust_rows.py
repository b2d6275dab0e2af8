"""What was once taken from strangers and is refused now, or read wrongly and is read rightly now: row by row.

    python -m checks.trust_rows            # run the tests that hold the rows, print the table: a few minutes
    python -m checks.trust_rows --write    # put it into docs/trust.md

A row is a kind of input, what happened to it before, what happens now, and the tests that hold
it. A row that names a test that is not there fails, as does one whose test fails or is skipped.
Exit code 1 for a row that does not hold.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from checks.harness import ROOT, table, write


class Row(NamedTuple):
    """One kind of input.

    Attributes:
        sent: what came from outside.
        before: what it did.
        now: what it does.
        tests: ``<file below tests, without test_ and .py>::<name without test_>``, one or more.
    """

    sent: str
    before: str
    now: str
    tests: tuple[str, ...]


def _tests(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::{name}" for name in names)


BUNDLE, HDF5, ARCHIVES = "commands/bundle", "data/hdf5", "data/archives"
FORMATS, IMAGES, SOURCES = "data/image_formats", "data/images", "data/sources"
LAYOUTS, PREPROCESS, DEMO, VERIFY = "data/layouts", "data/preprocess", "demo/app", "commands/verify"

ROWS = (
    Row(
        "bundle with a `.git/config` that names a program, links, or a bomb",
        "ran it, wrote through the link, 312 KB became 2 GB",
        "refused in one line; git sees no foreign configuration and no work tree",
        _tests(
            BUNDLE,
            "a_hostile_archive_is_refused_in_one_line_and_runs_nothing",
            "restoring_as_the_readme_teaches_runs_and_overwrites_nothing",
            "git_from_outside_knows_no_configuration_of_ours",
        ),
    ),
    Row(
        "HDF5 with external storage, links, virtual sets; 5.6 KB that claim 10^9 rows",
        "read any file of the machine; out of memory",
        "refused by name",
        _tests(
            HDF5, "files_that_reach_outside_or_claim_too_much", "a_bomb_within_a_chunk_is_refused_before_it_is_unpacked"
        ),
    ),
    Row(
        "damaged HDF5, a filter with a chunk of no size",
        "tracebacks, a crash of the process",
        "one line; the next file is read",
        _tests(
            HDF5,
            "damaged_files_give_one_line",
            "a_filter_with_a_chunk_of_no_size",
            "a_crash_of_the_library_is_one_line_and_the_next_file_is_read",
        ),
    ),
    Row(
        "onnxruntime's telemetry",
        "look-ups in three stages, demo and serving; an identity in the cache folder",
        "silenced before the import (`python -m checks.network` traces all of it)",
        _tests("exporting/telemetry", "it_is_told_before_it_is_imported", "make_tells_it_too"),
    ),
    Row(
        "a name of the grid with shell in it",
        "ran",
        "quoted, and refused before the first stage",
        _tests("pipeline", "a_name_in_the_grid_never_reaches_a_shell_as_code")
        + _tests("config/run", "a_wrong_grid_is_one_line"),
    ),
    Row(
        "secrets in a URL",
        "published in dvc.lock, lineage and cards",
        "refused before anybody is asked; taken from the environment or netrc, never shown",
        _tests(
            SOURCES,
            "secrets_in_a_url_are_refused_before_anybody_is_asked",
            "a_secret_comes_from_the_environment_and_is_not_repeated",
            "an_error_that_quotes_the_url_does_not_quote_its_secret",
            "netrc_is_asked_for_who_we_are",
        ),
    ),
    Row(
        "https that leaves for http, without a pinned digest",
        "taken",
        "refused, or asked for by name",
        _tests(
            SOURCES,
            "https_that_redirects_to_http_needs_a_digest",
            "http_does_not_stand_in_for_https_without_a_digest",
            "http_alone_was_asked_for_by_name",
        ),
    ),
    Row(
        "PostScript named `.png`",
        "Ghostscript ran",
        "the listed decoders only",
        _tests(FORMATS, "a_postscript_file_starts_no_program", "every_open_names_its_formats"),
    ),
    Row(
        "CI actions by tag, any setuptools",
        "whatever is there today",
        "by commit, least permissions, one version",
        _tests(
            "ci", "actions_are_pinned_and_may_do_little", "what_builds_the_package_is_one_version_and_the_installed_one"
        ),
    ),
    Row(
        "zip members by bz2 or LZMA, dictionaries without bound, pax headers, folders, headers",
        "893 bytes took 2 GB, 156 KB a minute",
        "all that comes out is metered, parsing is linear, no memory is a refusal",
        _tests(
            ARCHIVES,
            "a_zip_bomb_is_stopped_before_it_is_in_memory",
            "a_dictionary_of_xz_is_bounded",
            "pax_headers_are_read_in_linear_time",
            "folders_and_headers_count_as_bytes",
            "global_headers_do_not_make_every_member_slow",
            "memory_that_is_not_there_is_a_refusal",
        ),
    ),
    Row(
        "an image of very many pixels",
        "no limit for TIFF, Pillow's for the rest; a map was refused by translate",
        "`limits.pixels`, named in the refusal",
        _tests(FORMATS, "pixels_are_counted_before_they_are_decoded", "pillows_own_limit_decides_nothing")
        + _tests(PREPROCESS, "pixels_are_limited_by_name_before_they_are_decoded", "pixels_of_hdf5_are_limited_too")
        + _tests(
            "commands/translate",
            "pixels_are_limited_by_an_option_that_the_refusal_names",
            "a_map_of_more_pixels_than_pillow_takes_is_read",
        ),
    ),
    Row(
        "24 uploads at once, idle connections, foreign pages, large text in a PNG",
        "8.2 GB, 1,004 threads, served, a traceback",
        "two at work, connections end, refused, read",
        _tests(
            DEMO,
            "uploads_are_decoded_one_at_a_time_and_translations_two",
            "idle_connections_make_room_and_do_not_pile_up",
            "pages_of_other_origins_may_not_ask",
            "text_behind_the_pixels_is_no_error_of_ours",
            "prepared_arrays_are_mapped_before_requests_come",
            "sixteen_bits_are_refused_by_the_header_and_import_no_tensorflow",
        ),
    ),
    Row(
        "a bad image to the served model",
        "stack and paths in the answer",
        "one line of reason",
        _tests("exporting/pyfunc", "what_cannot_be_translated_is_refused_with_the_reason", "http"),
    ),
    Row(
        "an ONNX file whose weights lie in another file",
        "what lies below the current folder, in its pictures",
        "refused by name",
        _tests("inference/onnx_file", "weights_in_another_file_are_refused"),
    ),
    Row(
        "a JPEG with a long run of 255, an OME-TIFF of millions of pages, a BMP of runs, HDF5 of many chunks",
        "minutes to hours, gigabytes",
        "read as fast as others, or refused by name",
        _tests(
            "data/image_attacks",
            "a_long_run_of_255_in_a_jpeg_is_gone_through_once",
            "metadata_that_name_millions_of_pages_cost_nothing",
            "a_bmp_of_runs_is_refused",
        )
        + _tests(HDF5, "chunks_are_looked_up_once_for_a_file"),
    ),
    Row(
        "TIFFs of stacks, planes and 16-bit palettes, white as zero; a GIF or BMP that Pillow fills up; a turned PNG",
        "other pixels than the file's",
        "the file's, or refused by name",
        _tests(
            "data/image_attacks",
            "a_stack_that_one_directory_stands_for_is_read_whole",
            "where_white_is_zero_alpha_is_not",
            "gray_and_alpha_one_behind_the_other_keep_their_alpha",
            "a_palette_of_16_bits_is_not_cut_to_8",
            "two_colours_by_more_than_a_bit_a_pixel_are_refused",
            "a_gif_that_fills_no_screen_is_refused",
            "a_png_is_turned_by_whatever_metadata_say_so",
        ),
    ),
    Row(
        "an ONNX file that never ends, calls itself 2**40 times, or gives NaN or other sizes",
        "refused by translate alone; no end, a traceback or a picture of NaN from the demo and the served model",
        "one reason, the same from all three",
        _tests(
            "inference/onnx_file",
            "what_is_not_to_be_taken_is_refused_alike_by_translate_demo_and_served_model",
            "a_field_that_two_readers_see_differently_is_refused",
        ),
    ),
    Row(
        "a parent whose record names a network `../../x`, or that is trained anew while it is copied",
        "a file written outside; one state's record with the other's weights",
        "refused, with the name and the mend",
        _tests("schemas", "a_record_that_could_not_be_loaded")
        + _tests(
            "training/start",
            "a_name_of_a_network_leads_nowhere",
            "a_parent_that_is_trained_anew_while_it_is_copied_is_not_taken",
            "a_damaged_lineage_of_a_parent_is_one_line",
        ),
    ),
    Row(
        "requests to the demo with two lengths, `Content-Length: +5`, a space before the colon, `http://[x/`",
        "the body was taken for the next request; a traceback",
        "400, and the connection ends",
        _tests(DEMO, "what_two_servers_would_read_differently_is_refused_and_hides_no_request"),
    ),
    Row(
        "names with line breaks, no UTF-8, 255 letters",
        "a line of the stranger's on the terminal, tracebacks, an end in the middle",
        "one line, as many results as images",
        _tests("stage", "what_a_terminal_would_obey_is_spelt_out")
        + _tests("commands/translate", "a_file_may_have_any_name_that_a_disk_takes")
        + _tests("commands/add", "a_folder_whose_name_is_no_utf_8_is_added_and_packed")
        + _tests("files", "a_name_as_long_as_a_disk_takes_can_be_written_and_what_a_killed_one_left_is_found"),
    ),
    Row(
        "a server that drips, never ends its headers, redirects badly",
        "no end, a traceback",
        "a failure of that mirror",
        _tests(
            SOURCES,
            "bytes_that_drip_are_no_progress",
            "a_slow_server_is_given_up_although_its_bytes_add_up",
            "headers_without_end",
            "nonsense_is_the_failure_of_one_mirror",
            "host_names_that_are_none",
        ),
    ),
    Row(
        "a file that changes between two ranges",
        "mixed of both",
        "begun anew",
        _tests(
            SOURCES,
            "a_file_that_changed_between_attempts_is_not_mixed",
            "a_date_within_the_minute_is_no_ground_to_resume_on",
        ),
    ),
    Row(
        "a folder that is replaced while somebody reads, or is killed",
        "6,316 of 20,450 looks saw half of it",
        "one whole version at every look",
        _tests(
            "files",
            "who_looks_sees_a_whole_folder_while_writers_replace_it_and_are_killed",
            "a_kill_between_two_renames_leaves_the_old_folder_to_be_put_back",
        )
        + _tests(SOURCES, "what_a_killed_synthetic_run_left_is_cleared"),
    ),
    Row(
        "two experiments with one training at once",
        "deleted each other's checkpoints",
        "the second waits, and takes the first's state",
        _tests(
            "training/alone",
            "those_who_wait_take_the_finished_state_and_nothing_is_left",
            "where_one_is_killed_the_next_goes_on_from_its_checkpoint",
        ),
    ),
    Row(
        "two experiments of one cell at once",
        "one's TensorBoard file deleted by the other",
        "a folder for each run key",
        _tests("tracking/tensorboard", "a_fresh_start_forgets_the_cells_earlier_curves"),
    ),
    Row(
        ".heic, .avif, .jxl, .jp2 among the images",
        "left out without a word",
        "read with the extra, else named",
        _tests(FORMATS, "a_heic_says_what_to_install")
        + _tests(PREPROCESS, "what_is_not_read_is_named")
        + _tests("commands/translate", "files_that_are_not_read_are_named"),
    ),
    Row(
        "links to one file given to translate",
        "all but one left out",
        "as many results as inputs",
        _tests("commands/translate", "links_to_one_file_are_as_many_inputs"),
    ),
    Row(
        "a zip with one flipped bit, bytes behind its end or between entries",
        "27 flips lost files",
        "refused, or the same files",
        _tests(
            ARCHIVES,
            "no_flipped_bit_loses_or_changes_a_file",
            "data_behind_the_end_is_refused",
            "bytes_between_the_entries_of_a_zip_are_refused",
        ),
    ),
    Row(
        "one image by training, translate, served model and demo: orientation, alpha, MPO, 16 bits, LZW, odd EXIF",
        "four readings",
        "the same pixels or the same refusal ([table](images.md))",
        _tests(
            FORMATS,
            "every_door_gives_the_same_pixels_or_the_same_refusal",
            "the_page_says_what_the_reader_does",
            "the_pixels_are_exactly_those_of_the_file",
        )
        + _tests(IMAGES, "pgm_of_16_bits"),
    ),
    Row(
        "a relative tracking address under `--temp` or `--queue`, `?` in a path, a deleted experiment",
        "the run was lost, another database",
        "counts from the repository; one line that brings it back",
        _tests(
            "tracking/store",
            "a_run_in_a_temporary_copy_lands_in_the_repositorys_database",
            "any_character_may_be_in_the_repositorys_path",
            "an_experiment_that_was_deleted_is_one_line_that_brings_it_back",
            "the_experiment_that_the_environment_names_counts",
        ),
    ),
    Row(
        "a pool of images with a conditional discriminator",
        "an old image beside the new source",
        "pairs, as the reference",
        _tests(
            "systems/pool",
            "a_pooled_image_is_shown_beside_its_own_source",
            "a_pool_of_pairs_is_that_of_the_pytorch_code",
        ),
    ),
    Row(
        "`epochs` no more than `decay_epochs`",
        "no decay, silently",
        "all of them decay",
        _tests("config/models", "with_no_constant_epochs_all_of_them_decay"),
    ),
    Row(
        "Adam's epsilon, the U-Net's dropout",
        "one form, not said which",
        "options, stated in [systems](systems.md)",
        _tests("training/step_jax", "epsilon_is_added_where_torch_adds_it_or_where_tensorflow_does")
        + _tests("models/networks", "bottleneck_norm_and_dropout_are_where_they_are_asked_for"),
    ),
    Row(
        "PSNR of nearly equal images; FID of small dims with one's own weights",
        "-0.0 and the cap; nameless",
        "the value; the digest in the name",
        _tests(
            "evaluation/paired",
            "psnr_of_unequal_images_is_not_capped",
            "psnr_of_equal_images_is_the_cap_and_of_opposite_ones_zero",
        )
        + _tests("evaluation/features", "only_the_published_2048_is_called_fid"),
    ),
    Row(
        "verify: relative archives, files of git, a subfolder, an edited lock, other packages",
        "refused, a wrong mend, called chance",
        "each named for what it is",
        _tests(
            VERIFY,
            "the_archive_of_a_relative_address_is_found_from_the_clean_tree",
            "what_git_holds_is_brought_back_by_git",
            "from_a_folder_below_the_root",
            "an_edited_hash_in_the_lock_is_not_called_chance",
            "other_packages_than_those_of_the_outs_are_named",
        ),
    ),
    Row(
        "a grid that cannot hold: missing keys, a dash, bfloat16 with ONNX",
        "said after a day",
        "`repix check`, before the first stage",
        _tests(
            "config/check",
            "what_cannot_hold_is_said_at_the_start_in_one_line",
            "a_backend_that_is_not_installed_is_said_at_the_start",
        ),
    ),
    Row(
        "3,000 names without partner; `x_A`, `x_B`; lettered folders",
        "a line of 90 KB",
        "pairs, or a short line with the mend",
        _tests(
            LAYOUTS,
            "thousands_of_lonely_names_are_a_short_line_with_the_mend",
            "names_that_differ_at_one_end_are_pairs_whatever_the_extensions",
            "pairs_in_lettered_folders_are_pairs",
        ),
    ),
    Row(
        "zips of Windows with backslashes or Shift-JIS; tar with hard links or Latin-1",
        "`get another copy`",
        "read",
        _tests(
            ARCHIVES,
            "zips_from_windows_are_read",
            "backslashes_of_windows_do_not_lead_out",
            "hard_links_become_copies_that_count",
            "latin_1_names_of_a_tar_are_read",
        ),
    ),
    Row(
        "`resize: crop` with mixed sizes",
        "a mend that loses three quarters",
        "one that loses none",
        _tests(PREPROCESS, "mixed_sizes_name_a_mend_that_loses_no_image"),
    ),
    Row(
        "deep YAML, other encodings, a full disk, a limit on memory",
        "tracebacks",
        "one line",
        _tests("yaml12", "a_text_that_nests_without_end_is_one_line", "a_file_in_another_encoding_is_one_line")
        + _tests(VERIFY, "a_lock_that_is_no_text_is_one_line")
        + _tests(
            "stage",
            "a_full_disk_is_one_line_and_other_errors_keep_their_traceback",
            "a_limit_on_memory_is_one_line_at_the_end_and_no_traceback",
            "a_command_without_memory_is_one_line_although_nothing_can_be_imported_any_more",
        ),
    ),
    Row(
        "params.yaml as DVC rewrites it (`bias: 'yes'`)",
        "five of eight recipes broke",
        "one dialect, YAML 1.2",
        _tests("yaml12", "a_document_is_what_it_is_to_dvc", "a_scalar_is_what_it_is_to_dvc")
        + _tests("config/check", "dvc_rewrites_no_line_but_the_one_that_was_changed"),
    ),
)


def node_of(name: str) -> str:
    """Return what pytest calls a test by its short name."""
    file, _, test = name.partition("::")
    folder, _, stem = file.rpartition("/")
    return f"{Path('tests', folder, f'test_{stem}.py').as_posix()}::test_{test}"


def outcomes(names: Iterable[str]) -> dict[str, str]:
    """Run the tests; return name -> ``held``, or what happened, the worst of its cases."""
    names = list(dict.fromkeys(names))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
        command.append(f"--junit-xml={report}")
        done = subprocess.run([*command, *map(node_of, names)], cwd=ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            sys.exit((done.stdout + done.stderr)[-3000:])
        cases = list(ElementTree.parse(report).iter("testcase"))
    found = {}
    for name in names:
        file, _, test = node_of(name).partition("::")
        module = file.removesuffix(".py").replace("/", ".")
        mine = [
            case for case in cases if case.get("classname") == module and case.get("name", "").split("[")[0] == test
        ]
        said = [{child.tag for child in case} & {"failure", "error", "skipped"} for case in mine]
        bad = sorted(set().union(*said) - {"skipped"})
        # A case that this machine cannot run says so in the tests; a row needs one that ran.
        found[name] = bad[0] if bad else "held" if set() in said else "skipped" if mine else "not there"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/trust.md")
    given = parser.parse_args()
    found = outcomes(name for row in ROWS for name in row.tests)
    text = table(
        ["what came", "before", "now", "held by"],
        [(row.sent, row.before, row.now, ", ".join(f"`{name}`" for name in row.tests)) for row in ROWS],
        left=4,
    )
    print(text)
    bad = {name: outcome for name, outcome in found.items() if outcome != "held"}
    for name, outcome in bad.items():
        print(f"{node_of(name)}: {outcome}", file=sys.stderr)
    print(f"\n{len(ROWS)} rows, {len(found)} tests, {len(found) - len(bad)} held")
    if given.write and not bad:
        write("trust", "rows", f"\n{text}\n")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
