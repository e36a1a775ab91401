// What the statistics of the tables are called: in menus and titles in full, on axes in short.

const STATISTICS = {
  running_mean: ["Running mean", "Running mean"],
  running_variance: ["Running variance", "Running variance"],
  kernel_variance: ["Variance of the kernels", "Variance (weights²)"],
  relative_kernel_variance: ["Relative variance of the kernels", "Variance / mean square"],
  total_variation: ["Total variation of the kernels", "Total variation (weights)"],
  relative_total_variation: ["Relative total variation of the kernels", "Total variation / Σ|w|"],
  high_frequency_share: ["High frequencies of the kernels", "Share of the spectral energy"],
  norm: ["Norm of the weights", "‖w‖"],
  effective_learning_rate: ["Effective learning rate", "Effective learning rate"],
  decay_rate: ["Decay rate", "Share of ‖w‖ per step"],
  quadratic_sum: ["Quadratic sum of the parameters", "Σ w²"],
};
const DISTANCES = {
  mean: ["Distance of the running means", "|Δ running mean|"],
  variance: ["Distance of the running variances", "|Δ running variance|"],
  kl: ["Symmetric KL divergence", "Symmetric KL (nats)"],
};
const SIGNED = {
  mean: ["Difference of the running means", "Δ running mean"],
  variance: ["Difference of the running variances", "Δ running variance"],
};
const ORIGINS = { start: "from the start", last: "from the last look", checkpoint: "from the checkpoint" };

function labelsOf(statistic) {
  const distance = /^(signed_)?(mean|variance|kl)_from_(.+)$/.exec(statistic);
  const found = distance && (distance[1] ? SIGNED : DISTANCES)[distance[2]];
  const origin = (name) => (Object.hasOwn(ORIGINS, name) ? ORIGINS[name] : `from the ${name} domain`);
  if (found) return [`${found[0]} ${origin(distance[3])}`, found[1]];
  const words = statistic.replaceAll("_", " ");
  return Object.hasOwn(STATISTICS, statistic) ? STATISTICS[statistic] : Array(2).fill(words.charAt(0).toUpperCase() + words.slice(1));
}

function statisticLabel(statistic) {
  return labelsOf(statistic)[0];
}

function axisLabel(statistic) {
  return labelsOf(statistic)[1];
}

function epochText(x) {
  return String(Number(x.toFixed(3)));
}

function throughBatchNorm(domain) {
  return domain ? `, ${domain} BatchNorm` : "";
}

// A logged metric: in which group it is chosen, its name, its axis, and the factor to the axis' unit.
function metricLabel(metric) {
  const title = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const accuracy = /^(val|train)\/(clean|robust)_accuracy(?:_(.+))?$/.exec(metric);
  if (accuracy) {
    const [, set, kind, domain] = accuracy;
    const name = `${title(kind)} accuracy${set === "train" ? ", training" : ""}${throughBatchNorm(domain)}`;
    return { group: "Accuracy", name, axis: `${title(kind)} accuracy (%)`, factor: 100 };
  }
  const loss = /^(val|train)\/(?:(clean|robust)_)?loss(?:_(.+))?$/.exec(metric);
  if (loss) {
    const [, set, kind, domain] = loss;
    const name = `${title(kind ? `${kind} loss` : "loss")}, ${set === "train" ? "training" : "validation"}${throughBatchNorm(domain)}`;
    return { group: "Loss", name, axis: "Loss (nats)", factor: 1 };
  }
  if (metric.startsWith("lr-")) {
    const name = metric === "lr-" ? "Learning rate" : `Learning rate, ${metric.slice(3)}`;
    return { group: "Learning rate", name, axis: "Learning rate", factor: 1, log: true };
  }
  return { group: "Other", name: metric, axis: metric, factor: 1 };
}
