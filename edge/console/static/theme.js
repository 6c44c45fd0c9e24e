// Before the first paint, so that nobody who chose dark is flashed with light. Without a choice the system's holds.
"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("tollgate-theme");
  } catch {
    // Storage is off: the system's theme it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
