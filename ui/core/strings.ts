// All that the interface says: English, Chinese.

const STRINGS = {
  // The frame
  open: ["Open…", "打开…"],
  model: ["Model", "模型"],
  keys: ["Keys", "快捷键"],
  toLight: ["Light colours", "浅色"],
  toDark: ["Dark colours", "深色"],
  panels: ["Panels", "面板"],
  panelAsk: ["Ask", "提问"],
  panelLook: ["Look", "外观"],
  panelLayers: ["Channels", "通道"],
  panelCompare: ["Compare", "比较"],
  panelTrust: ["Trust", "可信度"],
  panelTake: ["Take", "导出"],
  close: ["Close", "关闭"],
  back: ["Back", "返回"],
  clear: ["Clear", "清除"],
  stop: ["Stop", "停止"],
  copy: ["Copy", "复制"],
  copied: ["Copied", "已复制"],
  starting: ["Getting ready…", "正在准备…"],
  looking: ["Looking…", "正在计算…"],
  gone: ["That picture isn't open any more; open it again.", "这张图片已不在，请重新打开。"],

  // The stage
  stage: ["{name} with its heatmap", "{name} 及其热力图"],
  tools: ["Tools", "工具"],
  toolMove: ["Move", "移动"],
  toolInspect: ["Look at a place", "查看一处"],
  toolPoint: ["Ask about a point", "询问一点"],
  toolBox: ["Ask about a box", "询问方框"],
  toolRegion: ["Ask about a region", "询问区域"],
  toolMissed: ["Why wasn't this detected?", "为何没有检测到？"],
  toolErase: ["Erase", "擦除"],
  brush: ["Brush", "笔刷"],
  original: ["Original", "原图"],
  zoomIn: ["Zoom in", "放大"],
  zoomOut: ["Zoom out", "缩小"],
  fit: ["Fit", "适合窗口"],
  heat: ["Heatmap on or off", "显示或隐藏热力图"],
  uncover: ["Uncover the photo", "露出原图"],
  weak: ["weak", "弱"],
  strong: ["strong", "强"],
  against: ["against", "反对"],
  for: ["for", "支持"],
  missed: ["missed", "漏检"],

  // Ask
  sees: ["What the model sees", "模型看到的"],
  nothingDetected: ["Nothing was detected.", "没有检测到物体。"],
  vs: ["vs", "对比"],
  why: ["Why {name}?", "为什么是{name}？"],
  ratherThan: ["rather than {name}", "而不是{name}"],
  backToPredicted: ["Back to the prediction", "回到预测"],
  searchClasses: ["Search {count} classes", "搜索 {count} 个类别"],
  noClass: ["No class is called that.", "没有这个类别。"],
  textHint: ["Describe what to look for", "描述要找的内容"],
  ask: ["Ask", "提问"],
  versusHint: [
    "Click a class to see why. Shift-click another to see why this and not that.",
    "点击一个类别查看原因；按住 Shift 点击另一个，查看为什么是这个而不是那个。",
  ],
  whyMissed: ["Why wasn't it detected?", "为何没有检测到？"],
  explainCandidate: ["Explain {name}, {share}", "解释 {name}（{share}）"],
  method: ["Method", "方法"],
  usual: ["Usual for this model: {name}", "此模型的默认方法：{name}"],
  slow: ["slow", "较慢"],
  smoothing: ["Smoothing", "平滑"],
  augSmooth: ["Over mirrored and scaled copies", "对镜像和缩放的副本取平均"],
  noiseSmooth: ["Over noisy copies", "对加噪的副本取平均"],
  eigenSmooth: ["First principal component", "第一主成分"],

  // Look
  colours: ["Colours", "颜色"],
  show: ["What is shown", "显示内容"],
  both: ["both", "两者"],
  range: ["range", "全范围"],
  opacity: ["Opacity", "不透明度"],
  ramp: ["By strength", "随强度"],
  even: ["Even", "均匀"],
  threshold: ["Nothing below", "低于此值不显示"],
  strongestAt: ["Drawn as strongest", "最强值"],
  outliers: ["Outliers left out", "忽略离群值"],
  greyPhoto: ["Photo in grey", "照片灰度显示"],
  usualLook: ["Back to the usual look", "恢复默认外观"],
  noHeatmap: ["There's no heatmap to draw yet.", "还没有热力图。"],

  // Layers and channels
  network: ["The network, from the picture to the decision", "网络：从图片到决策"],
  layer: ["Layer", "层"],
  channelCount: ["{count} channels", "{count} 个通道"],
  heatmapHere: ["Heatmap from here", "在此层生成热力图"],
  order: ["Order", "排序"],
  influence: ["Influence", "影响"],
  mean: ["Mean", "均值"],
  variance: ["Variance", "方差"],
  pinned: ["Pinned channels", "已固定的通道"],
  channel: ["Channel {number}", "通道 {number}"],
  unpin: ["Unpin channel {number}", "取消固定通道 {number}"],
  muted: ["muted", "已静音"],
  muteChannel: ["Strength of channel {number}", "通道 {number} 的强度"],
  mutedNow: ["Of the model with {count} made weaker", "模型已减弱 {count} 处"],
  unmute: ["Undo", "撤销"],

  // A place
  cell: ["Row {row}, column {column}", "第 {row} 行，第 {column} 列"],
  fieldIs: ["The dashed box is what of the picture this place sees.", "虚线框是此处能看到的图片范围。"],
  noField: ["This place sees the whole picture.", "此处能看到整张图片。"],
  alike: ["Where it looks alike", "相似之处"],
  fires: ["Channels that fire here", "在此激活的通道"],
  heads: ["Where each head looks from here", "各注意力头从这里看向何处"],
  head: ["Head {number}", "头 {number}"],

  // Compare
  sideBySide: ["Side by side", "并排比较"],
  compareHint: ["Zoom and move one, and all follow. Each has its own scale.", "缩放或移动一个，其余同步。各自使用自己的尺度。"],
  methods: ["Methods", "方法"],
  layers: ["Layers", "层"],
  models: ["Models", "模型"],
  pictures: ["Pictures", "图片"],
  removeFrom: ["Remove {name}", "移除 {name}"],
  difference: ["Difference", "差异"],
  showDifference: ["Show the difference, first minus second", "显示差异（第一减第二）"],

  // Trust
  trustTitle: ["Can this heatmap be believed?", "这张热力图可信吗？"],
  trustHint: [
    "The places that it marks are taken away, and what that does to the score is compared with chance. This takes some dozens of forward passes.",
    "移除它标出的位置，将对得分的影响与随机移除相比较。需要数十次前向计算。",
  ],
  check: ["Check", "检查"],
  checking: ["Checking…", "正在检查…"],
  better: ["Better than random maps", "优于随机图的比例"],
  kept: ["Score of the hot quarter alone", "仅保留最热四分之一时的得分"],
  keptOf: ["{kept} of {score}", "{score} 中的 {kept}"],
  stability: ["Stability", "稳定性"],

  // Take away
  asFile: ["As a file", "保存为文件"],
  asPng: ["picture", "图片"],
  asSvg: ["figure", "插图"],
  asPdf: ["figure", "插图"],
  asNpz: ["numbers", "数值"],
  making: ["Making…", "正在生成…"],
  asView: ["As a page", "保存为网页"],
  viewHint: ["One file that stays interactive, without Python.", "一个无需 Python 仍可交互的文件。"],
  saveView: ["Save this view", "保存此视图"],
  asLink: ["As a link", "保存为链接"],
  linkHint: ["The address of this page holds all that is set here.", "本页地址包含此处的全部设置。"],
  command: ["Command", "命令"],
  noClipboard: ["The browser doesn't allow copying here.", "浏览器不允许在此复制。"],

  // Open
  openPicture: ["Open a picture", "打开图片"],
  chooseFile: ["Choose a file", "选择文件"],
  paste: ["Paste", "粘贴"],
  camera: ["Camera", "摄像头"],
  takePhoto: ["Take the photo", "拍照"],
  noCamera: ["There's no camera that may be used.", "没有可用的摄像头。"],
  nothingToPaste: ["There's no picture on the clipboard.", "剪贴板中没有图片。"],
  dropHint: ["Or drop a picture anywhere on the page.", "也可以把图片拖到页面任意处。"],
  dropHere: ["Drop a photo here, paste one, or click to choose", "拖入、粘贴或点击选择一张照片"],
  letGo: ["Let go to open", "松开以打开"],

  // Keys
  click: ["click", "点击"],
  keyZoom: ["zoom and move, on the picture", "在图片上缩放和移动"],
  keyLayer: ["to the layer before, after", "上一层、下一层"],
  keySearch: ["search the classes", "搜索类别"],
  keyVersus: ["a class: rather than this one", "某类别：而不是这个"],
} as const;

export type Word = keyof typeof STRINGS;
export type Language = "en" | "zh";

let column = 0;

/** Say everything from now on in a language. */
export function speak(language: Language): void {
  column = language === "zh" ? 1 : 0;
}

/** The language of a browser's or a server's tag, such as "zh-CN". */
export const languageOf = (tag = ""): Language => (tag.toLowerCase().startsWith("zh") ? "zh" : "en");

/** A text, with `{name}` replaced by its value. */
export function say(word: Word, values: Record<string, string | number> = {}): string {
  return STRINGS[word][column].replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}
