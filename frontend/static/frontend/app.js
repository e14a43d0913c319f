// Theme, copying, and keeping opened tables open across polls. Every page works without it.
(function () {
  "use strict";
  var root = document.documentElement;
  var kept = null;
  try { kept = localStorage.getItem("theme"); } catch (e) { /* storage may be off: the system's theme stays */ }
  if (kept) root.dataset.theme = kept;

  document.addEventListener("click", function (event) {
    var button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.action === "theme") {
      var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch (e) { /* the choice lasts for this page */ }
    }
    if (button.dataset.copy && navigator.clipboard) {
      navigator.clipboard.writeText(button.dataset.copy).then(function () {
        var live = document.getElementById("live");
        if (live) live.textContent = "Copied " + button.dataset.copy;
      });
    }
  });

  // A poll replaces its region: without this, a table that the reader opened would close every two seconds.
  var open = [];
  document.addEventListener("htmx:beforeSwap", function (event) {
    open = Array.from(event.detail.target.querySelectorAll("details[id][open]"), function (details) { return details.id; });
  });
  document.addEventListener("htmx:afterSwap", function () {
    open.forEach(function (id) {
      var details = document.getElementById(id);
      if (details) details.open = true;
    });
  });
  // A poll that fails must show: a page that silently stands still looks like a fleet that does.
  function stale(isStale) {
    var notice = document.getElementById("stale");
    if (notice) notice.hidden = !isStale;
  }
  ["htmx:sendError", "htmx:responseError", "htmx:timeout"].forEach(function (name) {
    document.addEventListener(name, function () { stale(true); });
  });
  document.addEventListener("htmx:afterOnLoad", function () { stale(false); });
})();
