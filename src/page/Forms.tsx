/**
 * The dialogs that make, change and remove an instance.
 */
import { useRef } from "preact/hooks"
import type { Api, Instance, Version } from "./Api.js"
import { Dialog, Field } from "./Dialog.js"
import { masked, nameOf } from "./Format.js"

export interface Props {
  readonly api: Api
  readonly onClose: () => void
  /** Told of what was done, and to which instance. */
  readonly onDone: (instance: Instance, what: string) => void
}

interface OfOne extends Props {
  readonly instance: Instance
}

const textOf = (fields: FormData, name: string): string => {
  const value = fields.get(name)
  return typeof value === "string" ? value.trim() : ""
}

/** What a URL may begin as, to be filled in. */
const beginnings = [
  { label: "Server: visitors come here", url: (key: string) => `server://${key}@:10101/:8080?mode=1` },
  {
    label: "Client: in front of the service",
    url: (key: string) => `client://${key}@server.example:10101/127.0.0.1:3000?mode=2`
  },
  { label: "Forward a port", url: () => "client://127.0.0.1:8080/127.0.0.1:3000?mode=1" }
] as const

const drawKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")

export const Create = ({ api, onClose, onDone }: Props) => {
  const box = useRef<HTMLDivElement>(null)
  const begin = (url: string) => {
    const field = box.current?.querySelector("textarea")
    if (field === null || field === undefined) return
    field.value = url
    field.focus()
  }
  return (
    <Dialog
      title="New instance"
      action="Create"
      onClose={onClose}
      onSubmit={async (fields) => {
        const alias = textOf(fields, "alias")
        const body = { url: textOf(fields, "url"), ...(alias === "" ? {} : { alias }) }
        onDone((await api.send<Instance>("POST", "instances", body)).value, "was made")
      }}
    >
      <div ref={box}>
        <Field
          name="url"
          label="URL"
          rows={3}
          required
          hint="the URL of a server or a client, as on the command line; both sides have the same key"
        />
      </div>
      <div class="actions" role="group" aria-label="Begin with">
        {beginnings.map(({ label, url }) => (
          <button key={label} type="button" onClick={() => begin(url(drawKey()))}>
            {label}
          </button>
        ))}
      </div>
      <Field name="alias" label="Name" hint="what it is called here; its id where this is empty" />
    </Dialog>
  )
}

const tagsText = (tags: Readonly<Record<string, string>>): string =>
  Object.entries(tags)
    .map(([name, value]) => `${name}=${value}`)
    .join("\n")

const tagsFrom = (text: string): Record<string, string> =>
  Object.fromEntries(
    text
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "")
      .map((line) => {
        const [name = "", ...value] = line.split("=")
        return [name.trim(), value.join("=").trim()]
      })
  )

export const Edit = ({ api, instance, onClose, onDone }: OfOne) => (
  <Dialog
    title={`Edit ${nameOf(instance)}`}
    action="Save"
    onClose={onClose}
    onSubmit={async (fields) => {
      const path = `instances/${instance.id}`
      const url = textOf(fields, "url")
      const meta = { tags: tagsFrom(textOf(fields, "tags")) }
      const body = { alias: textOf(fields, "alias"), restart: fields.get("restart") === "on", meta }
      // The URL last: a PUT of what is there is refused, and whoever is refused either of the two says both again.
      const { value } = await api.send<Instance>("PATCH", path, body)
      if (url !== instance.url) await api.send("PUT", path, { url })
      onDone(value, "was saved")
    }}
  >
    <Field
      name="url"
      label="URL"
      rows={3}
      required
      value={instance.url}
      hint="another one restarts it, as a new version"
    />
    <Field name="alias" label="Name" value={instance.alias} />
    <Field name="tags" label="Tags" rows={2} value={tagsText(instance.meta.tags)} hint="name=value, one a line" />
    <label class="check">
      <input type="checkbox" name="restart" defaultChecked={instance.restart} /> starts with the master, and again after
      it broke
    </label>
  </Dialog>
)

export const Delete = ({ api, instance, onClose, onDone }: OfOne) => (
  <Dialog
    title={`Delete ${nameOf(instance)}?`}
    action="Delete"
    danger
    onClose={onClose}
    onSubmit={async () => {
      await api.send("DELETE", `instances/${instance.id}`)
      onDone(instance, "was deleted")
    }}
  >
    <p>It is stopped, and its versions, counters and log are gone.</p>
  </Dialog>
)

export const Reset = ({ api, instance, onClose, onDone }: OfOne) => (
  <Dialog
    title={`Reset the counters of ${nameOf(instance)}?`}
    action="Reset"
    danger
    onClose={onClose}
    onSubmit={async () => {
      await api.send("PATCH", `instances/${instance.id}`, { action: "reset" })
      onDone(instance, "counts from zero")
    }}
  >
    <p>What it has carried so far is forgotten.</p>
  </Dialog>
)

export const RollBack = ({ api, instance, onClose, onDone, version }: OfOne & { readonly version: Version }) => (
  <Dialog
    title={`Back to version ${version.version}?`}
    action="Roll back"
    onClose={onClose}
    onSubmit={async () => {
      await api.send("POST", `instances/${instance.id}/rollback`, { version: version.version })
      onDone(instance, `is as in version ${version.version} again`)
    }}
  >
    <p>
      It is restarted with <code>{masked(version.url)}</code>, as a new version.
    </p>
  </Dialog>
)
