// Follows the store: after each change the page is fetched again, and the parts marked data-live are replaced.
// A part stays as it is while the reader types in it or has opened something in it.

const follow = document.body.hasAttribute("data-follow");
let etag = null;
let busy = false;
let again = false;

function isInUse(part) {
  const active = document.activeElement;
  const typing = active && part.contains(active) && active.matches("input, textarea, select");
  return typing || part.querySelector(".acts details[open], details.groups[open]:not([data-first])") !== null ||
    (part.classList.contains("acts") && part.querySelector("details[open]") !== null);
}

function pathOf(element, part) {
  const key = element.getAttribute("href") || element.getAttribute("action") || element.textContent;
  return [...part.querySelectorAll(element.tagName)].findIndex(
    (one) => (one.getAttribute("href") || one.getAttribute("action") || one.textContent) === key);
}

function replace(old, fresh) {
  if (old.innerHTML === fresh.innerHTML || isInUse(old)) return;
  const active = document.activeElement;
  const inside = active && old.contains(active) ? { tag: active.tagName, at: pathOf(active, old) } : null;
  old.replaceChildren(...fresh.childNodes);
  if (inside && inside.at >= 0) {
    const target = old.querySelectorAll(inside.tag)[inside.at];
    if (target) target.focus({ preventScroll: true });
  }
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const headers = { "x-follows": "1" };
    if (etag) headers["if-none-match"] = etag;
    const answer = await fetch(location.href, { headers, cache: "no-store" });
    if (answer.status === 200) {
      etag = answer.headers.get("etag");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (fresh) replace(part, fresh);
      }
    }
  } catch {
    show("not connected");
  } finally {
    busy = false;
    if (again) { again = false; setTimeout(refresh, 300); }
  }
}

function show(text) {
  const sign = document.getElementById("live");
  sign.hidden = false;
  sign.textContent = text;
  sign.classList.toggle("off", text !== "live");
}

if (follow) {
  const events = new EventSource("/live");
  events.addEventListener("change", () => { if (!document.hidden) refresh(); });
  events.onopen = () => show("live");
  events.onerror = () => show("not connected");
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}

// On a narrow screen the current page's tab is scrolled into view, and a faded edge says that there are more tabs.
const tabs = document.querySelector(".top nav");
const mark = () => tabs.classList.toggle("more", tabs.scrollLeft + tabs.clientWidth < tabs.scrollWidth - 2);
const tab = tabs.querySelector("[aria-current]");
if (tab) tabs.scrollLeft = tab.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - tab.offsetWidth) / 2;
tabs.addEventListener("scroll", mark, { passive: true });
addEventListener("resize", mark);
mark();

// j and k go through the rows of a list, / to the filters.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const links = [...document.querySelectorAll("table.list .name > a")];
  const at = links.indexOf(document.activeElement);
  if (event.key === "j" && links.length) links[Math.min(at + 1, links.length - 1)].focus();
  else if (event.key === "k" && links.length) links[Math.max(at - 1, 0)].focus();
  else if (event.key === "/") {
    const field = document.querySelector(".filters input");
    if (field) { field.focus(); event.preventDefault(); }
  }
});
