# Of a preview only what a comment is made of: no times, no places of files, no outputs; a step a line.

def cut_state($type; $op):
  {custom, urn, protect, taint, inputs}
  | if ($type | startswith("command:")) then .inputs |= (. // {} | {create, environment, stdin})
    elif $op == "same" then .inputs |= {instanceType, associatePublicIpAddress, rootBlockDevice: {volumeSize: .rootBlockDevice?.volumeSize?}}
    else . end
  | del(.. | nulls);

# What stays as it is matters where it costs something.
def costs: test("aws:(ec2/(instance:Instance|eip:Eip|eipAssociation:EipAssociation)|secretsmanager/secret:Secret)::");

# A text that stays the same, or that installs scripts, says enough with its beginning.
def cut_texts:
  if (.oldState.inputs.stdin? == .newState.inputs.stdin? or ((.newState // .oldState).inputs.stdin? // "" | startswith("=== ")))
  then (.oldState.inputs?, .newState.inputs? | objects | .stdin | strings) |= .[:100] else . end;

[.diagnostics[]? | select(.message | startswith("warning: using pulumi-") | not) | {urn, message, severity} | del(.[] | nulls)] as $diagnostics
| (.steps // [] | map(select(.op != "refresh") | {(.oldState.urn // .urn): .}) | add // {}) as $wanted
| [.steps[]?
   | select((.newState // .oldState).custom)
   # A refresh, where what it found is another than what the state held.
   | select(.op != "refresh" or ($wanted | length > 0) and $wanted[.urn].oldState.inputs != .oldState.inputs)
   | select(.op != "same" or (.urn | costs) or ($wanted[.urn].oldState.inputs != .newState.inputs))
   | (.urn | split("::")[2] | split("$")[-1]) as $type | .op as $op
   | (.oldState, .newState | objects) |= cut_state($type; $op)
   | {op, urn, diffReasons, replaceReasons, oldState, newState} | del(.[] | nulls)
   | cut_texts]
| (map(tojson) | join(",\n")) as $steps
| "{\n\"steps\": [\n\($steps)\n],\n\"diagnostics\": \($diagnostics | tojson)\n}"
