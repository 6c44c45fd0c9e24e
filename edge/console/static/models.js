// The live catalog, with prices as people compare them: per million tokens.

import { api } from "./api.js";
import { h } from "./dom.js";
import { compact, perMillion, usdText } from "./format.js";
import { badge, copyButton, empty, heading, skeleton, trouble } from "./ui.js";

export function modelsView({ signal }) {
  const place = h("div", { "aria-live": "polite" }, skeleton());
  const search = h("input", {
    type: "search",
    placeholder: "Find a model",
    "aria-label": "Find a model",
    oninput: () => draw(),
  });
  let models = [];

  async function load() {
    try {
      models = (await api("GET", "models", { signal })).data;
      draw();
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(trouble(error, load));
    }
  }

  function draw() {
    const wanted = search.value.trim().toLowerCase();
    const found = models.filter((model) => `${model.id} ${model.name}`.toLowerCase().includes(wanted));
    if (found.length) place.replaceChildren(h("ul", { class: "models-list" }, found.map(entry)));
    else if (models.length) place.replaceChildren(empty("models", "No model has this name", "Try a part of it."));
    else place.replaceChildren(empty("models", "No models yet", "The operator of this service has not offered any."));
  }

  void load();
  return [
    heading("Models", "What you can use now, and what it costs. Prices are in USD per million tokens.", search),
    place,
  ];
}

function entry(model) {
  const price = model.pricing;
  const cached = price.input_cache_read !== price.prompt;
  const extra = [
    ["image", "an image"],
    ["request", "a request"],
  ].filter(([name]) => /[1-9]/.test(price[name]));
  const figure = (label, value) => h("div", null, h("dt", null, label), h("dd", null, value));
  return h(
    "li",
    { class: "card model" },
    h(
      "div",
      { class: "model-head" },
      h("h2", null, model.name || model.id),
      model.deprecation_date && badge(`until ${model.deprecation_date}`, "warn"),
    ),
    h(
      "p",
      { class: "id" },
      h("code", null, model.id),
      copyButton("Copy id", () => model.id, { class: "button quiet small", "aria-label": `Copy the id ${model.id}` }),
    ),
    model.description && h("p", { class: "model-text" }, model.description),
    h(
      "dl",
      { class: "prices" },
      figure("Input", perMillion(price.prompt)),
      cached && figure("Cached input", perMillion(price.input_cache_read)),
      figure("Output", perMillion(price.completion)),
      extra.map(([name, words]) => figure(`Per ${words.split(" ")[1]}`, usdText(price[name]))),
      figure("Context", `${compact(model.context_length)} tokens`),
      figure("Longest answer", `${compact(model.max_output_length)} tokens`),
    ),
    h(
      "div",
      { class: "model-foot" },
      h(
        "div",
        { class: "badges" },
        [...new Set([...model.input_modalities.filter((each) => each !== "text"), ...model.supported_features])].map(
          (each) => badge(each.replaceAll("_", " ")),
        ),
      ),
      h(
        "a",
        {
          class: "button",
          href: `#/playground?model=${encodeURIComponent(model.id)}`,
          "aria-label": `Try ${model.id} in the playground`,
        },
        "Try it",
      ),
    ),
  );
}
