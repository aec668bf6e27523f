/**
 * The dialogs that create, change and delete an instance.
 */
import { useRef } from "preact/hooks"
import type { Api, Instance, Version } from "./Api.js"
import { Dialog, Field } from "./Dialog.js"
import { masked, nameOf } from "./Format.js"

export interface Props {
  readonly api: Api
  readonly onClose: () => void
  /** Called after success with the instance and what happened to it. */
  readonly onDone: (instance: Instance, result: string) => void
}

interface InstanceProps extends Props {
  readonly instance: Instance
}

const textOf = (fields: FormData, name: string): string => {
  const value = fields.get(name)
  return typeof value === "string" ? value.trim() : ""
}

/** Templates of URLs. */
const templates = [
  { label: "Server: visitors connect here", url: (key: string) => `server://${key}@:10101/:8080?mode=1` },
  {
    label: "Client: next to the service",
    url: (key: string) => `client://${key}@server.example:10101/127.0.0.1:3000?mode=2`
  },
  { label: "Forward a port", url: () => "client://127.0.0.1:8080/127.0.0.1:3000?mode=1" }
] as const

const randomKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")

export const Create = ({ api, onClose, onDone }: Props) => {
  const box = useRef<HTMLDivElement>(null)
  const fill = (url: string) => {
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
        onDone((await api.send<Instance>("POST", "instances", body)).value, "was created")
      }}
    >
      <div ref={box}>
        <Field
          name="url"
          label="URL"
          rows={3}
          required
          hint="a server or client URL as on the command line; both sides need the same key"
        />
      </div>
      <div class="actions" role="group" aria-label="Templates">
        {templates.map(({ label, url }) => (
          <button key={label} type="button" onClick={() => fill(url(randomKey()))}>
            {label}
          </button>
        ))}
      </div>
      <Field name="alias" label="Name" hint="shown instead of the id; may be empty" />
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

export const Edit = ({ api, instance, onClose, onDone }: InstanceProps) => {
  /** As the last change has left it. */
  const seen = useRef(instance)
  return (
    <Dialog
      title={`Edit ${nameOf(instance)}`}
      action="Save"
      onClose={onClose}
      onSubmit={async (fields) => {
        const path = `instances/${instance.id}`
        const url = textOf(fields, "url")
        const meta = { tags: tagsFrom(textOf(fields, "tags")) }
        const body = { alias: textOf(fields, "alias"), restart: fields.get("restart") === "on", meta }
        // The URL last: the master refuses a PUT of the current URL, so a retry after a refused PUT must not repeat it first.
        const { value } = await api.send<Instance>("PATCH", path, body, { seen: seen.current })
        seen.current = value
        if (url !== instance.url) await api.send("PUT", path, { url }, { seen: value })
        onDone(value, "was saved")
      }}
    >
      <Field
        name="url"
        label="URL"
        rows={3}
        required
        value={instance.url}
        hint="a change restarts the instance; the earlier one can be set again"
      />
      <Field name="alias" label="Name" value={instance.alias} />
      <Field name="tags" label="Tags" rows={2} value={tagsText(instance.meta.tags)} hint="name=value, one per line" />
      <label class="check">
        <input type="checkbox" name="restart" defaultChecked={instance.restart} /> start with the master and after a
        failure
      </label>
    </Dialog>
  )
}

export const Delete = ({ api, instance, onClose, onDone }: InstanceProps) => (
  <Dialog
    title={`Delete ${nameOf(instance)}?`}
    action="Delete"
    danger
    onClose={onClose}
    onSubmit={async () => {
      await api.send("DELETE", `instances/${instance.id}`, undefined, { seen: instance })
      onDone(instance, "was deleted")
    }}
  >
    <p>The instance stops. Its versions, counters and log are deleted.</p>
  </Dialog>
)

export const Reset = ({ api, instance, onClose, onDone }: InstanceProps) => (
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
    <p>The traffic counted so far is discarded.</p>
  </Dialog>
)

export const RollBack = ({
  api,
  instance,
  onClose,
  onDone,
  version
}: InstanceProps & { readonly version: Version }) => (
  <Dialog
    title={`Roll back to version ${version.version}?`}
    action="Roll back"
    onClose={onClose}
    onSubmit={async () => {
      await api.send("POST", `instances/${instance.id}/rollback`, { version: version.version }, { seen: instance })
      onDone(instance, `was rolled back to version ${version.version}`)
    }}
  >
    <p>
      The instance restarts with <code>{masked(version.url)}</code> as a new version.
    </p>
  </Dialog>
)
