/**
 * A real browser of the system, without a window, in front of the built command.
 */
import * as Fs from "node:fs"
import nodeProcess from "node:process"
import axe from "axe-core"
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core"
import { timeLimitMillis } from "../../Runs.js"
import { find } from "./Program.js"

/** The browser's program, if this machine has one; `NODEPASS_BROWSER` names another. */
export const program: string | undefined = [
  nodeProcess.env["NODEPASS_BROWSER"],
  ...["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"].map(find)
].find((file) => file !== undefined && Fs.existsSync(file))

export const launch = (): Promise<Browser> =>
  chromium.launch({
    executablePath: program ?? "",
    // The sandbox does not work for root, which containers run as. Only the project's own page is loaded.
    args: nodeProcess.getuid?.() === 0 ? ["--no-sandbox"] : []
  })

/** A page in a window of its own, and its errors and foreign requests. */
export interface Window {
  readonly page: Page
  /** Its console: errors, warnings, and violations of the content security policy. */
  readonly complaints: ReadonlyArray<string>
  /** The origins that it sent requests to, each once. */
  readonly origins: ReadonlySet<string>
}

export const open = async (browser: Browser, options: BrowserContextOptions = {}): Promise<Window> => {
  const context = await browser.newContext({ locale: "en-GB", ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(timeLimitMillis / 2)
  const complaints: Array<string> = []
  const origins = new Set<string>()
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text())
  })
  page.on("pageerror", (error) => complaints.push(String(error)))
  page.on("request", (request) => origins.add(new URL(request.url()).origin))
  return { page, complaints, origins }
}

/** Violations of axe's rules: for keyboards, screen readers and contrast. */
export const barriers = async (page: Page): Promise<ReadonlyArray<string>> => {
  await page.evaluate(axe.source)
  return page.evaluate(async () => {
    const { violations } = await (globalThis as unknown as { readonly axe: typeof axe }).axe.run()
    return violations.map(({ help, nodes }) => `${help}: ${nodes.map(({ html }) => html).join(" ")}`)
  })
}

/** How far the page is wider than its window, in pixels. */
export const overhang = (page: Page): Promise<number> =>
  page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
