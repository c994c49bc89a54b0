"""What a page must not be, for people who see, hear or touch it differently: unreadable.

`faults(page)` reads the page as it is drawn now. Text must have the contrast that WCAG 2.2 asks for
at level AA (4.5 to 1, large text 3 to 1), against what lies behind it; over the video, where
anything can lie, against white and black. A control must have a name and be 24 pixels in both
directions, and nothing may make the page wider than its window.
"""

from playwright.sync_api import Page

_LOOK = """() => {
  const found = [];
  const say = (kind, element, more) => {
    const name = element.dataset.testid ?? element.className ?? "";
    const text = element.textContent.trim().replace(/\\s+/g, " ").slice(0, 40);
    found.push(`${kind}: ${element.tagName.toLowerCase()} ${name} "${text}" ${more}`);
  };
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colours = new Map();
  const colour = (text) => {
    if (!colours.has(text)) {
      probe.clearRect(0, 0, 1, 1);
      probe.fillStyle = text;
      probe.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
      colours.set(text, [r, g, b, a / 255]);
    }
    return colours.get(text);
  };
  const over = (top, below) => {
    const part = top[3];
    return [0, 1, 2].map((n) => top[n] * part + below[n] * (1 - part)).concat(1);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  // What lies behind an element: the layers down to an opaque one; null when a picture does.
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== "none") return null;
      const layer = colour(style.backgroundColor);
      if (layer[3] > 0) layers.push(layer);
      if (layer[3] === 1) return layers.reverse().reduce((below, top) => over(top, below));
      if (["fixed", "absolute"].includes(style.position) && at.tagName !== "DIALOG") break;
    }
    if (layers.length === 0) return null;
    return layers.reverse();
  };
  const grounds = (element) => {
    const found = behind(element);
    if (found === null) return [];
    if (typeof found[0] === "number") return [found];
    const anything = [[255, 255, 255, 1], [0, 0, 0, 1]];
    return anything.map((bottom) => found.reduce((below, top) => over(top, below), bottom));
  };
  const opacity = (element) => {
    let part = 1;
    for (let at = element; at; at = at.parentElement) part *= Number(getComputedStyle(at).opacity);
    return part;
  };
  const shown = (element) => {
    const box = element.getBoundingClientRect();
    return element.checkVisibility({ visibilityProperty: true }) && box.width > 1 && box.height > 1;
  };
  const top = [...document.querySelectorAll("dialog[open]")].pop() ?? document.body;
  for (const element of top.querySelectorAll("*")) {
    if (!shown(element) || element.closest(".hidden-text, [aria-hidden=true], :disabled")) continue;
    const style = getComputedStyle(element);
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const field = element.matches("input:not([type=checkbox], [type=radio]), select, textarea");
    if (own || field) {
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const ink = colour(style.color);
      for (const ground of grounds(element)) {
        const drawn = over([...ink.slice(0, 3), ink[3] * opacity(element)], ground);
        const is = ratio(drawn, ground);
        const needs = large ? 3 : 4.5;
        if (is < needs) say("contrast", element, `${is.toFixed(2)} of ${needs} (${style.color})`);
      }
    }
    if (element.matches("a[href], button, input, select, textarea, summary, [tabindex='0']")) {
      const box = element.getBoundingClientRect();
      const labels = [...(element.labels ?? [])].map((label) => label.textContent).join("");
      const name = [element.ariaLabel, element.getAttribute("aria-labelledby"), labels,
        element.title, element.matches("input, select, textarea") ? "" : element.innerText];
      const hidden = element.querySelector(".hidden-text, img[alt]:not([alt=''])");
      if (!name.some((text) => text?.trim()) && !hidden && element.tagName !== "PRE") {
        say("nameless", element, "");
      }
      const inText = style.display === "inline";
      const inLabel = labels && element.matches("input");
      if (!inText && !inLabel && (box.width < 24 || box.height < 24)) {
        say("small", element, `${Math.round(box.width)} x ${Math.round(box.height)}`);
      }
    }
  }
  if (document.documentElement.scrollWidth > innerWidth) {
    found.push(`wide: ${document.documentElement.scrollWidth} in a window of ${innerWidth}`);
  }
  return found;
}"""


def faults(page: Page) -> list[str]:
    """What is wrong with the page as it is drawn now; of an open dialog alone, if there is one."""
    # A sheet that still rises is drawn half transparent: what is judged is where it comes to rest.
    page.evaluate(
        "() => document.getAnimations().forEach((one) => one.effect.getTiming().iterations"
        " === Infinity ? one.cancel() : one.finish())"
    )
    found: list[str] = page.evaluate(_LOOK)
    return found
