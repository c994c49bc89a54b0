/** Handing a file to the person at this browser. */

/** A saved file's address is given back after so long, milliseconds: the browser has read it by then. */
const KEPT_MS = 60_000;

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}

/**
 * Shows a page in another tab. The tab is opened before the page is there: only a press may open one.
 * Its own style would be refused by the policy that it inherits, so it gets a sheet of ours.
 * @param {() => Promise<Blob>} load
 * @param {string} sheet address of its style
 */
export async function openPage(load, sheet) {
  const tab = globalThis.open("", "_blank");
  try {
    const text = await (await load()).text();
    const link = `<link rel="stylesheet" href="${location.origin}${sheet}">`;
    const page = new Blob([text.replace(/<style>[^<]*<\/style>/, link)], { type: "text/html" });
    if (tab) tab.location.href = URL.createObjectURL(page);
    else save(page, "receipt.html");
  } catch (error) {
    tab?.close();
    throw error;
  }
}
