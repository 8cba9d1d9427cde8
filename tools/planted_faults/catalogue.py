"""The faults: at least one in each part of the method, the engine, the trainer, the data and the files.

The texts are the lines that carry a formula or a decision. A fault that no longer fits is reported as out of date: give
it the line that says the same now.
"""

from __future__ import annotations

from tools.planted_faults.planting import Fault

METHOD = [
    Fault(
        "threshold_not_strict",
        "a confidence equal to the threshold ends the thoughts",
        [
            (
                " > settings.exit_threshold",
                " >= settings.exit_threshold",
            )
        ],
        ["test_the_threshold_is_strict"],
        [("self.score(probe) > self.threshold", "self.score(probe) >= self.threshold")],
    ),
    Fault(
        "first_token_always_skipped",
        "the score leaves out a first token that holds part of the answer",
        [('return skip if self._token_text.decode(self.token_ids[:skip]).strip() in ("", "{") else 0', "return skip")],
        ["test_no_token_that_holds_a_part_of_the_answer_is_left_out"],
        [("min(self.skip_first, probe.opening)", "self.skip_first")],
    ),
    Fault(
        "confidence_not_normalised",
        "the geometric score is the product of the probabilities, not their mean",
        [
            (
                "return math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities))",
                "return math.exp(math.fsum(map(math.log, probabilities)))",
            )
        ],
        ["test_golden"],
    ),
    Fault(
        "answer_token_left_out_of_joint",
        "a token that holds the opening brace and the answer's start is not part of the answer",
        [("start = place if piece[offset + 1 :].strip() else place + 1", "start = place + 1")],
        ["test_boxed_answer_span"],
        [("start += not pieces[start][brace.end() - (ends[start] - len(pieces[start])) :].strip()", "start += 1")],
    ),
    Fault(
        "held_token_not_fed_again",
        "after a declined probe the cache keeps the probe where the marker was",
        [("self._fed = min(self._base, newest)", "self._fed = newest")],
        ["test_rollout.py"],
    ),
    Fault(
        "probe_one_token_late",
        "the first token of the marker stays in front of the inducing prompt",
        [("self._base = len(self._kept) - hit.held\n", "self._base = len(self._kept) - max(0, hit.held - 1)\n")],
        ["test_rollout.py"],
    ),
    Fault(
        "think_budget_one_late",
        "thoughts run one token past their budget",
        [("len(self._kept) >= self._think_budget", "len(self._kept) > self._think_budget")],
        ["test_rollout.py"],
    ),
    Fault(
        "near_budget_strict",
        "a probe exactly at the margin before the budget is declined",
        [("self._think_budget - self._base <= near_margin", "self._think_budget - self._base < near_margin")],
        ["test_rollout.py"],
        [("probe.position >= self.near_budget", "probe.position > self.near_budget")],
    ),
    Fault(
        "near_budget_of_thoughts",
        "a margin given as a share is taken of the think budget instead of the completion limit",
        [
            (
                "budget_tokens(settings.near_budget_margin, self._limit)",
                "budget_tokens(settings.near_budget_margin, self._think_budget)",
            )
        ],
        ["test_rollout.py"],
        [
            (
                "near_budget=budget - budget_tokens(self.near_budget_margin, limit)",
                "near_budget=budget - budget_tokens(self.near_budget_margin, budget)",
            )
        ],
    ),
    Fault(
        "one_probe_too_many",
        "max_probes allows one probe more",
        [("len(self._probes) < self._settings.max_probes", "len(self._probes) <= self._settings.max_probes")],
        ["test_rollout.py"],
        [("declined < self.max_probes", "declined <= self.max_probes")],
    ),
    Fault(
        "blank_line_before_close",
        "the close keeps its newline after thoughts that end in one",
        [
            (
                'token_text.decode(thoughts[-1:]).endswith("\\n")',
                'token_text.decode(thoughts[-1:]).endswith("\\n\\n\\n")',
            )
        ],
        ["test_rollout.py"],
    ),
    Fault(
        "answer_drawn_with_used_numbers",
        "after an exit the answer is drawn with the numbers that had drawn the dropped marker",
        [("return len(self._kept) + len(self._dropped)", "return len(self._kept)")],
        ["test_rollout.py"],
    ),
    Fault(
        "last_marker_not_counted",
        "a completion that ends in a marker has one step too few",
        [
            (
                "steps=self._segmenter.count(text),\n            close=self._close",
                "steps=self._scanner.steps,\n            close=self._close",
            )
        ],
        ["test_rollout.py"],
    ),
    Fault(
        "probed_members_rounded_down",
        "of 8 members at rate 0.2 one is probed instead of two",
        [("share = int(probe_rate * group_size + 0.5)", "share = int(probe_rate * group_size)")],
        ["test_rollout.py"],
    ),
    Fault(
        "waiting_is_a_marker",
        "a word that only starts with a marker counts in texts",
        [
            (
                "if not (is_word(thoughts[start - 1 : start]) or is_word(thoughts[after : after + 1])):",
                "if not is_word(thoughts[start - 1 : start]):",
            )
        ],
        ["test_split_text"],
    ),
    Fault(
        "scanner_forgets_long_words",
        "while streaming, a long word that starts with a marker counts as one",
        [
            (
                "                if len(run) <= longest:\n                    run += char",
                "                if len(run) < longest:\n                    run += char",
            )
        ],
        ["test_hits_and_held", "test_three_counts_agree_on_toy_pieces"],
    ),
    Fault(
        "straddling_token_dropped",
        "a token such as '12 Wait' is held back with its content",
        [
            (
                "return len(self._pushed) - place - bool(stays)",
                "return len(self._pushed) - place",
            )
        ],
        ["test_hits_and_held"],
    ),
    Fault(
        "drop_keeps_the_step",
        "the step of a dropped marker stays counted",
        [
            (
                "self._reader, self._steps, self._closed = first.reader, first.steps, False",
                "self._reader, self._closed = first.reader, False",
            )
        ],
        ["test_dropped_tokens_leave_no_trace"],
    ),
    Fault(
        "replay_threshold_not_strict",
        "the replay of an exit rule takes a score equal to the threshold",
        [("self.score(probe) > self.threshold", "self.score(probe) >= self.threshold")],
        ["test_the_first_score_above_the_threshold_stops"],
    ),
    Fault(
        "mean_steps_over_all",
        "the baseline of the step reward counts wrong members too",
        [('strict=True) if is_correct or mean_over == "all"]', "strict=True)]")],
        ["test_golden_rewards_of_the_paper"],
    ),
    Fault(
        "long_answers_preferred",
        "the step term has the wrong sign",
        [("outcome = step_alpha * (1 - excess)", "outcome = step_alpha * (1 + excess)")],
        ["test_golden_rewards_of_the_paper"],
        [("return self.step_alpha * (1 - penalty)", "return self.step_alpha * (1 + penalty)")],
    ),
    Fault(
        "format_only_if_correct",
        "a wrong but boxed answer loses its format reward",
        [("(1 - step_alpha) * bool(is_formatted))", "(1 - step_alpha) * bool(is_formatted and is_correct))")],
        ["test_golden_rewards_of_the_paper", "test_correct_earns_within_its_bounds_and_wrong_at_most_a_tenth"],
        [
            (
                "step_excess(k, mean)) + (1 - self.step_alpha) * is_formatted",
                "step_excess(k, mean)) + (1 - self.step_alpha) * (is_formatted and is_correct)",
            )
        ],
    ),
    Fault(
        "population_std",
        "advantages are divided by the population's standard deviation",
        [("divisor = statistics.stdev(rewards) + eps", "divisor = statistics.pstdev(rewards) + eps")],
        ["test_golden_advantages_for_both_eps"],
    ),
    Fault(
        "advantage_without_eps",
        "nothing is added to the group's standard deviation",
        [("divisor = statistics.stdev(rewards) + eps", "divisor = statistics.stdev(rewards)")],
        ["test_golden_advantages_for_both_eps", "test_eps_is_trls_by_default"],
    ),
    Fault(
        "length_penalty_over_all",
        "the length penalty's mean counts wrong answers",
        [
            (
                "mean, std = statistics.fmean(right), statistics.pstdev(right)",
                "mean, std = statistics.fmean(tokens), statistics.pstdev(right)",
            )
        ],
        ["test_golden_length_penalties", "test_the_length_of_wrong_answers_is_nothing_to_the_length_penalty"],
    ),
    Fault(
        "clip_on_the_wrong_side",
        "the clipped surrogate takes the minimum before it multiplies with a negative advantage",
        [("torch.minimum(free * advantage, clipped * advantage)", "torch.minimum(free, clipped) * advantage")],
        ["test_it_is_the_loss_in_plain_numbers"],
    ),
    Fault(
        "gradient_through_the_clip",
        "in plain numbers, a token beyond the clip still pulls",
        [("flows = inside or (free < held and ratio <= bound)", "flows = inside or (free > held and ratio <= bound)")],
        ["test_clipping_by_hand", "test_the_gradient_is_the_loss_s_slope"],
    ),
    Fault(
        "kl_of_the_other_direction",
        "the KL penalty is estimated from policy to reference",
        [("gap = reference - logprobs", "gap = logprobs - reference")],
        ["test_it_is_the_loss_in_plain_numbers"],
    ),
    Fault(
        "dapo_divides_by_this_part",
        "the dapo loss divides by the tokens at hand, not those of the generation batch",
        [('"dapo": [max(1, at_hand if batch_tokens is None else batch_tokens)]', '"dapo": [max(1, at_hand)]')],
        ["test_weights_by_hand"],
    ),
    Fault(
        "noise_repeats_every_rollout",
        "the rollout's index has no part in a sample's random numbers",
        [("for part in (key.seed, key.rollout, key.sample):", "for part in (key.seed, key.sample):")],
        ["test_every_part_of_the_key_matters"],
    ),
]

ENGINES = [
    Fault(
        "cumulative_in_float32",
        "tokens are drawn from a cumulative distribution in single precision",
        [("cumulative = weights.cumsum(dim=-1)", "cumulative = weights.float().cumsum(dim=-1).double()")],
        [
            "test_drawing_follows_the_distribution_and_its_filters",
            "test_impossible_tokens_are_never_drawn",
            "test_a_large_vocabulary_is_drawn_from_exactly",
        ],
    ),
    Fault(
        "nucleus_one_token_wide",
        "the token after the one that completes the nucleus may be drawn",
        [
            (
                "inside = before < sampling.top_p * ordered.sum",
                "inside = before - ordered < sampling.top_p * ordered.sum",
            )
        ],
        ["test_drawing_follows_the_distribution_and_its_filters"],
    ),
    Fault(
        "logprob_after_top_p",
        "the recorded log-probability is that of the filtered distribution",
        [
            (
                "return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist()",
                "return tokens[:, 0].tolist(), (weights / total).log().gather(-1, tokens)[:, 0].tolist()",
            )
        ],
        ["test_drawing_follows_the_distribution_and_its_filters"],
    ),
    Fault(
        "probe_at_sampling_temperature",
        "the confidence is read off the tempered distribution",
        [
            (
                "choose_likeliest(_subset(logits, greedy))",
                "choose_likeliest(_subset(logits, greedy) / (sampling.temperature or 1.0))",
            )
        ],
        ["test_probe_confidence_is_the_models", "test_no_probe_leaves_a_trace"],
    ),
    Fault(
        "rewound_token_visible",
        "after a rewind a row attends to one token of the abandoned probe",
        [("<= self.places[:, :, None])[:, None]", "<= self.places[:, :, None] + 1)[:, None]")],
        ["test_probes_that_never_exit_change_nothing", "test_recorded_logprobs_are_the_models"],
    ),
    Fault(
        "moved_row_keeps_old_values",
        "a row that moves to a free slot finds the finished row's values",
        [("                layer.values[target, :, : self.width] = layer.values[source, :, : self.width]\n", "")],
        ["test_a_completion_does_not_depend_on_its_batch"],
    ),
    Fault(
        "prompts_share_a_prefill",
        "prompts of equal length get the first one's prefill",
        [
            (
                "torch.tensor([entries[tuple(prompt)] for prompt in prompts], device=device)",
                "torch.tensor([{len(q): p for q, p in entries.items()}[len(r)] for r in prompts], device=device)",
            )
        ],
        ["test_a_completion_does_not_depend_on_its_batch", "test_greedy_decoding_equals_generate"],
    ),
    Fault(
        "dropout_during_the_rollout",
        "the model samples in training mode",
        [("    model.eval()\n    try:\n        yield\n", "    try:\n        yield\n")],
        [
            "test_recorded_logprobs_are_the_models",
            "test_greedy_decoding_equals_generate",
            "test_dropout_is_off_during_a_rollout",
        ],
    ),
    Fault(
        "serial_answers_too_long",
        "the answer after an exit has the room of a whole completion",
        [("[limit - exit.length for exit in exits]", "[limit for exit in exits]")],
        ["test_members_share_one_chain_and_exit_in_order"],
    ),
    Fault(
        "model_eos_ignored",
        "only the tokenizer's own end-of-sequence token ends a completion",
        [("return cls._build(table, [*own_eos, *eos_ids]", "return cls._build(table, [*own_eos]")],
        ["test_control_tokens"],
    ),
    Fault(
        "padding_may_end_answers",
        "a tokenizer whose padding is its end-of-sequence token is accepted",
        [
            (
                "return tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id",
                "return tokenizer.pad_token_id is not None",
            )
        ],
        ["test_padding_is_set_apart_where_the_tokenizer_knows_how", "test_only_a_training_asks_for_a_padding_token"],
    ),
    Fault(
        "shares_in_the_wrong_order",
        "evaluations of several processes are joined one after the other, not interleaved",
        [
            (
                "shares[place % len(shares)][place // len(shares)] for place in range(sum(map(len, shares)))",
                "item for part in shares for item in part",
            )
        ],
        ["test_an_evaluation_shared_by_processes_is_the_whole_in_order"],
    ),
]

TRAINING = [
    Fault(
        "mask_turned_round",
        "in the ablation forced tokens train and sampled ones do not",
        [("[[int(not forced) for forced in row.forced]", "[[int(forced) for forced in row.forced]")],
        [
            "test_masks_are_exactly_as_long_as_their_completions",
            "test_forced_closes_carry_exactly_the_gradient_that_masking_takes_away",
        ],
    ),
    Fault(
        "forced_tokens_look_certain",
        "a forced token counts as sampled with probability 1, which mutes it",
        [
            (
                'return {"logprobs": [trajectory.logprobs for trajectory in trajectories]}',
                'return {"logprobs": [[value or 0.0 for value in row.logprobs] for row in trajectories]}',
            )
        ],
        [
            "test_forced_tokens_have_importance_ratio_one_off_policy",
            "test_recorded_logprobs_are_the_policys_and_unknown_where_forced",
        ],
    ),
    Fault(
        "processes_draw_alike",
        "every process samples with the first one's random numbers",
        [("accelerator.process_index * len(prompts)", "accelerator.process_index * 0")],
        ["test_samples_are_counted_over_all_processes"],
    ),
    Fault(
        "rewards_of_the_first_process",
        "every process trains on the first one's rewards",
        [("first = PartialState().process_index * len(rows)", "first = 0")],
        ["test_split_groups_are_rewarded_like_whole_ones"],
    ),
    Fault(
        "evaluation_with_exits",
        "the trainer's evaluation rollouts are truncated too",
        [("settings = trainer.rollout_settings if training else None", "settings = trainer.rollout_settings")],
        ["test_evaluation_is_plain_decoding"],
        [('settings = self.args.rollout if split == "train" else None', "settings = self.args.rollout")],
    ),
    Fault(
        "rollouts_counted_since_start",
        "a resumed run samples its rollouts with the numbers of earlier ones",
        [
            (
                "index = step * self.args.rollouts_per_step + self._rollouts[mode, step]",
                "index = sum(self._rollouts.values())",
            )
        ],
        ["test_rollout_index_depends_on_the_step_alone"],
    ),
    Fault(
        "epochs_in_one_order",
        "every epoch sees the problems in the same order",
        [("self.generator.manual_seed(self.seed + epoch)", "self.generator.manual_seed(self.seed)")],
        ["test_epochs_have_orders_of_their_own"],
    ),
    Fault(
        "validation_moves_the_generator",
        "training goes on with other random numbers after a validation",
        [("with torch.random.fork_rng():", "with torch.random.fork_rng(enabled=False):")],
        ["test_validation_leaves_no_trace"],
    ),
    Fault(
        "infinite_loss_passes",
        "only a loss of NaN is refused, not an infinite one",
        [("if model.training and not torch.isfinite(value).all():", "if model.training and torch.isnan(value).any():")],
        ["test_a_loss_that_is_no_number_stops_the_update"],
    ),
    Fault(
        "gradient_unchecked",
        "a gradient that is not finite moves the weights",
        [
            (
                "        if not finite_gradients(self.model):\n",
                "        if False and not finite_gradients(self.model):\n",
            )
        ],
        ["test_a_gradient_that_is_no_number_stops_the_update"],
    ),
    Fault(
        "half_checkpoints_accepted",
        "a checkpoint whose weights are cut off is resumed from",
        [
            (
                "if (checkpoint / name).stat().st_size != size:",
                "if (checkpoint / name).stat().st_size > size:",
            )
        ],
        ["test_sizes_alone_believe_contents_and_no_length"],
    ),
    Fault(
        "steps_logged_twice",
        "a resumed run keeps the metrics of steps that it does again",
        [('if row["step"] <= state.global_step]', 'if row["step"] <= state.global_step + 1]')],
        ["test_a_resumed_metrics_file_has_each_step_once"],
    ),
]

DATA_AND_FILES = [
    Fault(
        "box_in_the_thoughts_counts",
        "an answer counts without a closed thought",
        [
            (
                "    if close < 0:\n        return None\n    boxes",
                "    close = max(close, 0)\n    boxes",
            )
        ],
        ["test_extract_boxed"],
    ),
    Fault(
        "box_after_the_last_close",
        "what follows the first close is not searched if the text closes again",
        [("close = text.find(THINK_CLOSE)", "close = text.rfind(THINK_CLOSE)")],
        ["test_extract_boxed"],
    ),
    Fault(
        "fractions_divided_whole",
        "a fraction is compared without its remainder",
        [("Fraction(int(top), int(bottom)) if int(bottom)", "Fraction(int(top) // int(bottom)) if int(bottom)")],
        ["test_fractions_are_compared_exactly", "test_the_fast_path_decides_what_it_is_meant_to_decide"],
    ),
    Fault(
        "close_numbers_equal",
        "numbers that differ by less than 0.00001 are equal",
        [
            (
                "    return gold_number == answer_number\n",
                "    return abs(gold_number - answer_number) < Fraction(1, 100_000)\n",
            )
        ],
        ["test_the_labelled_pairs_are_graded_as_labelled", "test_the_exact_fast_path_agrees_with_math_verify"],
    ),
    Fault(
        "a_unit_letter_vanishes",
        "a bare letter behind a number is taken for a unit",
        [("|[A-Za-z]{2,}\\.?)(?:", "|[A-Za-z]{1,}\\.?)(?:")],
        ["test_the_labelled_pairs_are_graded_as_labelled"],
    ),
    Fault(
        "values_agree_at_one_point",
        "two expressions are equal where they agree for positive letters",
        [
            (
                '                return False\n            raise Unread("equal for',
                '                return True\n            raise Unread("equal for',
            )
        ],
        ["test_values_are_exact_where_digits_would_not_do"],
    ),
    Fault(
        "a_chain_is_its_last_side",
        "a chain counts as its last side though its sides differ",
        [("name=name, wrong=False in verdicts)", "name=name, wrong=False)")],
        ["test_the_labelled_pairs_are_graded_as_labelled"],
    ),
    Fault(
        "late_reply_for_the_next_question",
        "a worker that took too long is asked on, and its late reply is taken for the next one's",
        [("            if reply == _DIED:\n                self._discard()\n", "            if reply == _DIED:\n")],
        ["test_a_worker_that_stands_still_is_replaced_and_asked_again"],
    ),
    Fault(
        "duplicate_ids_accepted",
        "two problems of a file may share an id",
        [("            if first != number:\n", "            if first > number:\n")],
        ["test_a_bad_row_is_named_with_file_row_field_and_remedy"],
    ),
    Fault(
        "contradicting_golds_kept",
        "of repeated problems with different golds the first is trusted",
        [(" if len({problem.answer for problem in same}) == 1]", "]")],
        ["test_repeated_prompts_are_dropped_and_contradictory_ones_not_trusted"],
    ),
    Fault(
        "samples_of_a_problem_alike",
        "all samples of a problem are drawn with the same random numbers",
        [
            (
                'SampleKey(seed, "eval", 0, index) for index in share',
                'SampleKey(seed, "eval", 0, index // samples) for index in share',
            )
        ],
        ["test_evaluate_keys_grades_and_keeps_what_it_should"],
    ),
    Fault(
        "pairs_by_place",
        "two evaluations are compared by place instead of problem",
        [("[order[row]] for row in rows]", "[row] for row in rows]")],
        ["test_compare_pairs_by_problem_id_and_not_by_place"],
    ),
    Fault(
        "bootstrap_unpaired",
        "before and after are drawn independently",
        [("column[drawn].mean(axis=1)", "column[generator.integers(problems, size=drawn.shape)].mean(axis=1)")],
        ["test_pairing_cancels_the_difficulty_of_the_problems"],
    ),
    Fault(
        "splits_overlap",
        "a training problem may be a test problem",
        [("if self.split_of(problem) == split", "if True")],
        ["test_splits_cannot_overlap"],
    ),
    Fault(
        "second_check_verifies",
        "every repetition of the solution counts as verification",
        [("            confirmed = move.completes\n", "            confirmed = False\n")],
        ["test_labels"],
    ),
    Fault(
        "unknown_recipe_keys_ignored",
        "a misspelt key of a recipe changes nothing and says nothing",
        [
            (
                "            mistakes[path] = _unknown(where, path)\n            continue",
                "            continue",
            ),
        ],
        ["test_wrong_overrides_name_key_and_remedy", "test_wrong_files_are_named"],
    ),
    Fault(
        "nan_is_within_range",
        "a recipe's NaN passes its range",
        [
            (
                'return self.low <= value <= self.high\n\n    def __str__(self) -> str:\n        return f"at',
                "return not value < self.low and not self.high < value\n\n"
                '    def __str__(self) -> str:\n        return f"at',
            )
        ],
        ["test_wrong_overrides_name_key_and_remedy", "test_an_impossible_recipe_is_one_line"],
    ),
    Fault(
        "markup_of_completions_runs",
        "a completion's HTML is part of the report's page",
        [("if _is_hidden(sign) else escape(sign) for sign in text", "if _is_hidden(sign) else sign for sign in text")],
        ["test_hostile_text_stays_text"],
    ),
    Fault(
        "bidirectional_text_unmarked",
        "characters that reorder text pass into pages",
        [('("Cc", "Cf", "Cs", "Zl", "Zp") else _escaped(char)', '("Cc", "Cs", "Zl", "Zp") else _escaped(char)')],
        ["test_terminal_sequences_are_made_visible", "test_no_escape_sequence_reaches_the_terminal"],
    ),
    Fault(
        "files_written_in_place",
        "a reader may see half of a run's file",
        [
            (
                "    beside = part_of(path)\n    beside.unlink(missing_ok=True)",
                "    beside = path\n    beside.unlink(missing_ok=True)",
            )
        ],
        ["test_files_are_written_whole"],
    ),
    Fault(
        "broken_row_hides_the_rest",
        "a metrics file with a broken row in its middle is read as if it ended there",
        [
            (
                '                if line.endswith(b"\\n"):\n                    raise\n                return',
                "                return",
            )
        ],
        ["test_a_broken_row_of_metrics_is_named_and_a_cut_off_one_dropped"],
    ),
    Fault(
        "cache_not_rounded_up",
        "the memory plan counts a cache of exactly the context's width",
        [("rows * math.ceil(tokens / WIDTH_STEP) * WIDTH_STEP * dimensions", "rows * tokens * dimensions")],
        ["test_the_rollout_s_cache", "test_the_cache_grows_with_rows_and_tokens"],
    ),
]

FAULTS = [*METHOD, *ENGINES, *TRAINING, *DATA_AND_FILES]
