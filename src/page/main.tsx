/**
 * The master's page, served at the base path of its API.
 */
import { render } from "preact"
import { App } from "./App.js"

const root = document.querySelector("#app")
if (root !== null) render(<App />, root)
