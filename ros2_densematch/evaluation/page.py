"""The frame and the style sheet of report.html."""

# ruff: noqa: E501  (a style rule a line)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f3f4f6; color: #1f2937; font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 48px; }
header { margin-bottom: 18px; }
.kicker { margin: 0; color: #2563eb; font-weight: 600; letter-spacing: .04em; }
h1 { margin: 0 0 10px; font-size: 28px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 6px; font-size: 18px; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
.facts dt { color: #6b7280; } .facts dd { margin: 0; overflow-wrap: anywhere; }
section { background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 18px 20px; margin: 0 0 16px; }
section > p { margin: 0 0 10px; color: #4b5563; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; padding: 0; background: none; border: 0; }
.tile { flex: 1 1 210px; background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 24px; line-height: 1.25; } .tile span { display: block; }
.tile small { color: #6b7280; }
.notice { margin: 0 0 10px; padding: 10px 14px; border-left: 4px solid #d97706; background: #fffbeb; border-radius: 6px; }
.notice.error { border-color: #dc2626; background: #fef2f2; } .notice.info { border-color: #2563eb; background: #eff6ff; }
.wide { overflow-x: auto; } .wide svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: 6px 10px; vertical-align: top; }
th { color: #6b7280; font-weight: 600; border-bottom: 2px solid #e5e7eb; } td { border-bottom: 1px solid #f0f1f3; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } td:first-child { white-space: nowrap; } td small { color: #6b7280; }
td i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
figure { margin: 0 0 16px; } figure:last-child { margin: 0; }
img { width: 100%; height: auto; display: block; border-radius: 6px; } figcaption { color: #4b5563; font-size: 14px; margin-top: 4px; }
.ramp { display: inline-block; width: 70px; height: 10px; border-radius: 3px; background: linear-gradient(90deg, #3b528b, #21918c, #5ec962, #fde725); }
.ramp.full { background: linear-gradient(90deg, #440154, #3b528b, #21918c, #5ec962, #fde725); }
.red { color: #d64541; font-weight: 600; }
footer { color: #6b7280; font-size: 13px; margin-top: 18px; }
"""
